"""What every bench shares: it parses `--json FILE` and `--tiny`, times alternatives in turn, and prints a table."""

import argparse
import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import torch


def arguments(description: str, **defaults: int | Path) -> argparse.Namespace:
    """Parses the options of a bench; `defaults` are further ones."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--tiny", action="store_true", help="a smoke run on a tiny model; its figures mean nothing")
    parser.add_argument("--rounds", type=int, default=5, help="how often each alternative is measured")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    return parser.parse_args()


def resident_mib() -> float:
    """Returns the memory of the process, after Python and the C library have released their reserves."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


def synchronise() -> None:
    """Waits until the GPU, if there is one, has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turn(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Yields every name once per round. Rounds start with different names, because the first may have an advantage."""
    names = list(names)
    for round_number in range(rounds):
        start = round_number % len(names)
        yield from names[start:] + names[:start]


def interleaved(alternatives: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times the alternatives in turn, so that a machine that slows down slows all of them, after one warm-up each."""
    for run in alternatives.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for name in in_turn(alternatives, rounds):
        synchronise()
        began = time.perf_counter()
        alternatives[name]()
        synchronise()
        seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio_rows(seconds: dict[str, list[float]], baseline: str) -> list[dict]:
    """Returns each alternative's median seconds, and its median, smallest and largest ratio to its round's baseline."""
    rows = []
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds[baseline], strict=True)]
        rows.append(
            {
                "what": name,
                "seconds": round(statistics.median(values), 4),
                f"over {baseline}": round(statistics.median(ratios), 4),
                "least": round(min(ratios), 4),
                "largest": round(max(ratios), 4),
            }
        )
    return rows


def report(title: str, rows: Sequence[dict], file: Path | None = None) -> None:
    """Prints rows as a table, and writes them as JSON if a file is named."""
    columns = list(rows[0])
    widths = [max(len(str(column)), *(len(str(row[column])) for row in rows)) for column in columns]
    print(f"\n{title}")
    print("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)))
    for row in rows:
        print("  ".join(str(row[column]).ljust(width) for column, width in zip(columns, widths, strict=True)))
    if file:
        file.write_text(json.dumps({"title": title, "rows": list(rows)}, indent=2) + "\n", encoding="utf-8")
