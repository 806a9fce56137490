"""Reads the batches of this process's slots in another thread, while training runs on the previous one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from ..data.batch import BatchSource, TrainingBatch
from .order import SampleOrder


class BatchesAhead:
    """A context manager that reads one batch ahead in a thread.

    Args:
        batches: the training set.
        order: which samples belong to a slot of an iteration.
        slots: slots of this process, in the order in which they are taken, which is the same in every iteration.
    """

    def __init__(self, batches: BatchSource, order: SampleOrder, slots: range) -> None:
        self._batches = batches
        self._order = order
        self._slots = slots
        self._ahead: Future[TrainingBatch] | None = None
        self._pool = ThreadPoolExecutor(1, "fpga-training-data")

    def __enter__(self) -> BatchesAhead:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, iteration: int, slot: int) -> TrainingBatch:
        """Returns the batch of a slot, and starts to read the next one.

        Args:
            iteration: from 0.
            slot: the first of `slots`, or the one after the slot of the previous call.
        Raises:
            TrainingDataError: a sample cannot be used; the message names it.
        """
        batch = self._ahead.result() if self._ahead else self._batches.batch(self._order.indices(iteration, slot))
        is_last = slot == self._slots[-1]
        following = (iteration + 1, self._slots[0]) if is_last else (iteration, slot + self._slots.step)
        self._ahead = self._pool.submit(self._batches.batch, self._order.indices(*following))
        return batch
