"""Runs tasks with Daft: on this machine's cores by default, or on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...fpga_core import errors
from ...fpga_core.errors import FPGAError, TrainingDataError
from ...fpga_core.packages import importing
from . import worker
from .parts import Part, struct_of, write_part
from .tasks import WHOLE, Row, Task

DAFT = '"daft[ray]>=0.7.26" pyarrow'
FOLDER = Path(__file__).absolute().parents[2]
PACKAGE = __name__.removesuffix(".commands.dataset.engine")
PLACES = ("number", "part")
"""What tells the engine which row of which part a result belongs to."""


@dataclass(frozen=True)
class Engine:
    """Where tasks run.

    Attributes:
        workers: number of worker processes.
        gpus: GPUs that each of them takes; a fraction shares one.
        on_ray: True on the Ray cluster of RAY_ADDRESS, or on a local one.
    """

    workers: int
    gpus: float = 0.0
    on_ray: bool = False

    def run(self, task: Task, parts: Sequence[Part], show: Callable[[int], object] = lambda done: None) -> None:
        """Does what is missing of a task: writes the result of each part as soon as it is complete.

        Args:
            task: the task.
            parts: the parts, whose tables hold the columns that the task takes.
            show: called with the number of pictures that were done, each time.
        """
        gives = {"number": WHOLE, **task.gives}
        missing = {part.number: part for part in parts if not part.is_done and part.num_rows}
        for part in parts:
            if not part.is_done and not part.num_rows:
                write_part(part.result, [], gives)
        gathered: dict[int, list[Row]] = {number: [] for number in missing}
        for row in self._results(task, list(missing.values())):
            rows = gathered[row["part"]]
            rows.append(row)
            if len(rows) == missing[row["part"]].num_rows:
                part = missing[row["part"]]
                write_part(part.result, sorted(rows, key=lambda row: row["number"]), gives)
                del gathered[row["part"]]
            show(1)
        if gathered:
            raise TrainingDataError(
                f"run the command again: the engine gave no result for a part of {len(gathered):,} parts"
            )

    def _results(self, task: Task, parts: Sequence[Part]) -> Iterator[Row]:
        if not parts:
            return
        import daft
        from daft.exceptions import DaftCoreException

        frame = daft.read_parquet([str(part.given) for part in parts])
        if self.on_ray:  # else the files would be read, and the pictures seen, as one
            frame = frame.into_partitions(max(len(parts), self.workers))
        given = self._function(task)(*(frame[name] for name in task.takes))
        try:
            for batch in frame.select(*PLACES, given).to_arrow_iter():
                yield from batch.to_pylist()
        except (DaftCoreException, RuntimeError) as error:
            raise _reason(error) from error

    def _function(self, task: Task) -> Callable[..., Any]:
        """Returns the task as a function of Daft's columns."""
        import daft

        dtype = daft.DataType.from_arrow_type(struct_of(task.gives))
        run = daft.method.batch(return_dtype=dtype, unnest=True, batch_size=task.batch_size)(worker.Worker.run)
        kind = type(task.name, (worker.Worker,), {"run": run, "__module__": worker.__name__})
        wrapped = daft.cls(use_process=True, max_concurrency=self.workers, gpus=self.gpus)(kind)
        return wrapped(PACKAGE, str(FOLDER), task.module, task.arguments, task.takes).run


@contextmanager
def open_engine(workers: int, gpus: float, *, on_ray: bool) -> Iterator[Engine]:
    """Starts Daft. It is not allowed to report its use to anybody.

    Raises:
        MissingPackageError: Daft or Ray is not installed.
    """
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    with importing("daft", install=DAFT):
        import daft
        from daft.pickle.cloudpickle import register_pickle_by_value
    register_pickle_by_value(worker)
    if not on_ray:
        daft.set_runner_native()
        yield Engine(workers, gpus)
        return
    with importing("ray", install=DAFT):
        import ray
    here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.WARNING, **here)
    try:
        daft.set_runner_ray()
        yield Engine(workers, gpus, on_ray=True)
    finally:
        ray.shutdown()


def _reason(error: BaseException) -> FPGAError:
    """Returns the pack's own error if one ended a worker, or one with the engine's words."""
    cause: BaseException | None = error
    while cause is not None:
        kind = getattr(errors, type(cause).__name__, None)  # a worker's class is another one of that name
        if isinstance(kind, type) and issubclass(kind, FPGAError):
            return kind(str(cause))
        cause = cause.__cause__
    return TrainingDataError(f"run the command again, perhaps with fewer --workers: the engine failed ({error})")
