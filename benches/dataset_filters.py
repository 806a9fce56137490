"""Precision and recall of the filters of `fpga-portrait dataset build`, on painted pictures with known faults.

Each fault is put into 8 % of the pictures: blur, too small, groups, copies, damaged files, captions of other pictures.
The thresholds are the defaults, but for the sizes, because these pictures have 256 pixels. A picture counts as found if
the step that looks for its fault left it out; of a copy and its original, either. The issue's goal is 0.98 for each, on
20,000 pictures. Faces are found by the small world's own detector.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _report import arguments, report
from dataset_runs import build_words, report_of, run
from painted_pictures import BLUR, CAPTION, DAMAGED, DUPLICATE, GROUP, SMALL, Painted, write_pictures

NUM, NUM_TINY, SEED = 20_000, 40, 2026
STEPS = {
    BLUR: ("clarity",),
    SMALL: ("resolution",),
    GROUP: ("faces",),
    DUPLICATE: ("duplicate", "duplicate face"),
    DAMAGED: ("decoding",),
    CAPTION: ("caption score",),
}
LEAST_CAPTION_SCORE = 0.7


def figures(pictures: Sequence[Painted], rows: Sequence[dict], fault: str) -> dict:
    """Returns how many pictures have a fault, how many the step left out, and how far both are the same ones."""
    left_out = [number for number, row in enumerate(rows) if row["step"] in STEPS[fault]]
    with_fault = [picture for picture in pictures if picture.fault == fault]
    if fault == DUPLICATE:
        original = {picture.number: picture.number if picture.of is None else picture.of for picture in pictures}
        right = [number for number in left_out if original[number] == original[rows[number]["duplicate_of"]]]
        found = [one for one in with_fault if is_left_out(rows, one.number) or is_left_out(rows, one.of)]
    else:
        right = [number for number in left_out if pictures[number].fault == fault]
        found = [one for one in with_fault if rows[one.number]["step"] in STEPS[fault]]
    return {
        "fault": fault,
        "pictures": len(with_fault),
        "left out": len(left_out),
        "precision": round(len(right) / len(left_out), 4) if left_out else "",
        "recall": round(len(found) / len(with_fault), 4) if with_fault else "",
    }


def is_left_out(rows: Sequence[dict], number: int | None) -> bool:
    return number is not None and rows[number]["step"] is not None


def main() -> None:
    options = arguments(__doc__ or "", pictures=NUM)
    num = NUM_TINY if options.tiny else options.pictures
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "pictures", Path(folder) / "set"
        pictures = write_pictures(source, SEED, num, processes=2)
        words = build_words(source / "pictures.csv", output, **{"min-caption-score": LEAST_CAPTION_SCORE})
        began = time.perf_counter()
        run(words, timeout_s=None)
        seconds = time.perf_counter() - began
        rows = report_of(output)
    if [row["file"] for row in rows] != [f"{picture.number:06}.jpg" for picture in pictures]:
        raise ValueError("the report does not list each picture once")
    title = f"{num:,} painted pictures, every one accounted for, {num / seconds:.1f} a second with two workers"
    report(title, [figures(pictures, rows, fault) for fault in STEPS], options.json)


if __name__ == "__main__":
    main()
