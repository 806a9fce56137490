"""`fpga-portrait dataset COMMAND`: makes training sets from pictures. See docs/dataset.md.

fpga-portrait dataset build SOURCE... --output FOLDER [options]    from folders, tables and shards to a training set
"""

from __future__ import annotations

import argparse
import signal
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from .build_options import add_build_options, settings_of

BUILD = "build"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fpga-portrait dataset",
        usage="fpga-portrait dataset COMMAND ... [options]",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_build_options(commands.add_parser(BUILD, help="build a training set"))
    return parser


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


def main(arguments: list[str]) -> int:
    given = build_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C
    return build(given)
