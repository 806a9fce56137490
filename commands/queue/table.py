"""Reads a table of jobs: one row per picture, from CSV, JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...fpga_core.errors import InvalidInputError
from ..tables import Row, read_rows
from .graph import WORKFLOW, Graph, Photos, fill, read_workflow
from .job import Job

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
    for number, row in enumerate(read_rows(path, "jobs"), 1):
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
