"""`fpga-portrait dataset COMMAND`: makes training sets from pictures. See docs/dataset.md.

fpga-portrait dataset build SOURCE... --output FOLDER [options]    from folders, tables and shards to a training set
fpga-portrait dataset check FOLDER                                 reads a set, and compares it with its report
fpga-portrait dataset stats FOLDER [--page FILE]                   what was left out and why, and what is in the set
fpga-portrait dataset review FOLDER --reviewer NAME [options]      keeps or drops pictures by keyboard, in a browser
"""

from __future__ import annotations

import argparse
import signal
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from .build_options import add_build_options, settings_of

BUILD, CHECK, STATS, REVIEW = "build", "check", "stats", "review"
MOST_SHOWN = 50
"""Faults that `check` prints; the others are counted."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fpga-portrait dataset",
        usage="fpga-portrait dataset COMMAND ... [options]",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_build_options(commands.add_parser(BUILD, help="build a training set"))
    for name, purpose in ((CHECK, "check a set"), (STATS, "count a set"), (REVIEW, "look at a set")):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("folder", metavar="FOLDER", type=Path, help="what `dataset build` wrote")
        if name == STATS:
            command.add_argument("--page", metavar="FILE", type=Path, help="write the charts as an HTML page as well")
        if name == REVIEW:
            add_review_options(command)
    return parser


def add_review_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reviewer", metavar="NAME", required=True, help="your name, which decisions are kept under")
    parser.add_argument(
        "--decisions", metavar="FILE", type=Path, help="default: FOLDER/decisions-NAME.jsonl; `build` reads it"
    )
    parser.add_argument("--sample", metavar="PERCENT", type=float, default=100.0, help="of the pictures; default: 100")
    parser.add_argument("--port", metavar="NUMBER", type=int, default=0, help="default: a free one")
    parser.add_argument("--fiftyone", metavar="FOLDER", type=Path, help="write them for FiftyOne instead of a page")


@contextmanager
def progress_bar(title: str, total: int) -> Generator[Callable[[int], object]]:
    """Shows how far a step is."""
    from tqdm import tqdm

    with tqdm(desc=title, total=total, smoothing=0.05) as bar:
        yield bar.update


def build(given: argparse.Namespace) -> int:
    """Builds a set. The exit status is 1 if no picture gets into it."""
    from filelock import FileLock, Timeout

    from ...fpga_core.errors import InvalidInputError
    from .build import Build
    from .engine import open_engine
    from .report import REPORT

    settings = settings_of(given)
    settings.output.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(settings.output / ".lock", timeout=0),
            open_engine(given.workers, given.gpus, on_ray=given.ray) as engine,
        ):
            counts = Build(settings, engine, progress_bar).run()
    except Timeout:
        raise InvalidInputError(
            f"wait for the other build that writes to '{settings.output}', or name another --output"
        ) from None
    print(f"{summary(counts)}\nreport: {settings.output / REPORT}")
    return 0 if counts[""] else 1


def summary(counts: Counter[str]) -> str:
    """Returns what became of the pictures, the most frequent reason first."""
    total = sum(counts.values())
    reasons = [f"  {count:>9,}  {step}" for step, count in counts.most_common() if step]
    return "\n".join([f"{counts['']:,} of {total:,} pictures are in the set; left out by", *reasons])


def check(given: argparse.Namespace) -> int:
    """Prints what is wrong with a set. The exit status is 1 if something is."""
    from .check import check as faults_of

    faults = list(faults_of(given.folder))
    print("\n".join(faults[:MOST_SHOWN]) or "nothing is wrong with the set")
    if len(faults) > MOST_SHOWN:
        print(f"and {len(faults) - MOST_SHOWN:,} more")
    return int(bool(faults))


def stats(given: argparse.Namespace) -> int:
    """Prints the counts of a set."""
    from .report import REPORT, read_report
    from .stats import charts_of, text_of, write_page

    rows = read_report(given.folder / REPORT)
    charts = charts_of(rows)
    print(text_of(charts))
    if given.page is not None:
        write_page(given.page, rows, charts)
    return 0


def review(given: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    from .review import Decisions, ReviewServer, pictures_of, write_fiftyone

    pictures = pictures_of(given.folder, given.sample)
    if given.fiftyone is not None:
        write_fiftyone(pictures, given.fiftyone)
        print(f"{len(pictures):,} pictures for FiftyOne: {given.fiftyone}")
        return 0
    path = given.decisions or given.folder / f"decisions-{given.reviewer}.jsonl"
    with ReviewServer(pictures, Decisions(path, given.reviewer), given.port) as server:
        print(f"{len(pictures):,} pictures: {server.url}\ndecisions: {path}\nCtrl-C ends the review", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"pass --decisions '{path}' to `dataset build` to leave out what was dropped")
    return 0


COMMANDS = {BUILD: build, CHECK: check, STATS: stats, REVIEW: review}


def main(arguments: list[str]) -> int:
    given = build_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C
    return COMMANDS[given.command](given)
