"""Tables that people write: rows from CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..fpga_core.errors import InvalidInputError
from ..fpga_core.packages import importing

Row = dict[str, Any]
"""Column -> value. Empty cells are left out."""


def read_rows(path: Path, what: str) -> Iterator[Row]:
    """Yields the rows of a table, in order.

    Args:
        path: the table.
        what: what it holds, for messages.
    Raises:
        InvalidInputError: the file cannot be read, or is none of the three formats.
    """
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines}
    readers[".parquet"] = read_parquet
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInputError(f"save the {what} as .csv, .jsonl or .parquet; '{path}' is none of them")
    try:
        for row in reader(path):
            yield {name: value for name, value in row.items() if name and value not in (None, "", [])}
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInputError(f"check the file of {what}: '{path}' cannot be read ({error})") from error


def read_csv(path: Path) -> Iterator[Row]:
    """Reads a CSV file, whose columns are separated by commas, semicolons or tabs, as spreadsheets write it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        separator = max(",;\t", key=header.count)
        for row in csv.DictReader(file, delimiter=separator):
            yield {name: (cell or "").strip() for name, cell in row.items() if name is not None}


def read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("each line must be an object with the columns as its keys")
                yield row


def read_parquet(path: Path) -> Iterator[Row]:
    with importing("pyarrow"):
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
