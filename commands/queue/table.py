"""Reads a table of jobs: one row per picture, from CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...fpga_core.errors import InvalidInputError
from ...fpga_core.packages import importing
from .graph import WORKFLOW, Graph, Photos, fill, read_workflow
from .job import Job

Row = dict[str, Any]
"""Column -> value. Empty cells are left out."""

SEED = "seed"
SHOWN_FAULTS = 20


def read_jobs(path: Path) -> list[Job]:
    """Reads a table, and makes the jobs of all of its rows. Rows that ask for the same picture make one job.

    Raises:
        InvalidInputError: the table or a workflow cannot be read, or rows cannot be used; the message names each.
    """
    workflows: dict[Path, Graph] = {}
    photos = Photos(path.parent)
    jobs: dict[str, Job] = {}
    faults: list[str] = []
    for number, row in enumerate(read_rows(path), 1):
        try:
            for job in jobs_of(row, number, workflows, photos):
                jobs.setdefault(job.key, job)
        except InvalidInputError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        more = [f"and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        raise InvalidInputError("\n".join([f"correct these rows of '{path}':", *faults[:SHOWN_FAULTS], *more]))
    if not jobs:
        raise InvalidInputError(f"'{path}' has no rows; write one for each picture, and {WORKFLOW!r} as a column")
    return list(jobs.values())


def jobs_of(row: Row, number: int, workflows: dict[Path, Graph], photos: Photos) -> Iterator[Job]:
    """Yields the jobs of a row, one for each of its seeds."""
    if WORKFLOW not in row:
        raise InvalidInputError(
            f"name a workflow in the column {WORKFLOW!r}; the row has {', '.join(row) or 'nothing'}"
        )
    file = photos.folder / str(row[WORKFLOW])
    if file not in workflows:
        workflows[file] = read_workflow(file)
    values = {name: value for name, value in row.items() if name not in (WORKFLOW, SEED)}
    for seed in seeds_of(row.get(SEED)):
        graph, uploads = fill(workflows[file], values, seed=seed, photos=photos)
        yield Job.of(graph, row=number, uploads=uploads)


def seeds_of(cell: object) -> list[int | None]:
    """Returns the seeds of a cell: one, a list, or several in a text such as `1 2 3` or `1-8`; None keeps it."""
    if cell is None:
        return [None]
    if isinstance(cell, list):
        return [seed for part in cell for seed in seeds_of(part)]
    seeds: list[int | None] = []
    for word in str(cell).replace(",", " ").split():
        first, _, last = word.partition("-")
        number = first.removesuffix(".0")  # as spreadsheets and Parquet write whole numbers in a column with gaps
        if not number.isdecimal() or not (last or number).isdecimal():
            raise InvalidInputError(f"write seeds as whole numbers, such as 7, 1 2 3 or 1-8; {cell!r} is not one")
        seeds += range(int(number), int(last or number) + 1)
    return seeds


def read_rows(path: Path) -> list[Row]:
    """Reads the rows of a table, in order.

    Raises:
        InvalidInputError: the file cannot be read, or is none of the three formats.
    """
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines}
    readers[".parquet"] = read_parquet
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInputError(f"save the jobs as .csv, .jsonl or .parquet; '{path}' is none of them")
    try:
        rows = reader(path)
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInputError(f"check the file of jobs: '{path}' cannot be read ({error})") from error
    return [{name: value for name, value in row.items() if name and value not in (None, "", [])} for row in rows]


def read_csv(path: Path) -> list[Row]:
    """Reads a CSV file, whose columns are separated by commas, semicolons or tabs, as spreadsheets write it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        separator = max(",;\t", key=header.count)
        return [
            {name: (cell or "").strip() for name, cell in row.items() if name is not None}
            for row in csv.DictReader(file, delimiter=separator)
        ]


def read_json_lines(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line must be an object with the columns as its keys")
    return rows


def read_parquet(path: Path) -> list[Row]:
    with importing("pyarrow"):
        import pyarrow.parquet
    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
