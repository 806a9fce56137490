"""The processes that train together, started by Hugging Face accelerate. It is imported only to train."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ...packages import importing
from .settings import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

LAUNCHED = "LOCAL_RANK"
"""The environment variable that launchers set for the processes that they start."""

STOPPING_SIGNALS = ("SIGINT", "SIGTERM")

TRACKED = "tracked"
"""The folder of what a tracker writes, in the folder of the training."""


class Tracker(str, Enum):
    """A program that shows losses, of those that accelerate writes for."""

    TENSORBOARD = "tensorboard"


logger = logging.getLogger(__name__)


def start_processes(
    precision: Precision, use_cpu: bool, *, tracker: Tracker | None = None, folder: Path | None = None
) -> Accelerator:
    """What `accelerate launch` has started, or this process alone. Call it before models are loaded.

    Args:
        precision: precision of the computation.
        use_cpu: whether to leave the GPU alone.
        tracker: what shows the losses beside the pack's own log, see `report_to_tracker`.
        folder: folder for what it writes.
    Returns:
        The accelerator; its `device` is this process's own.
    Raises:
        MissingPackageError: accelerate, or the tracker's package, is not installed.
    """
    with importing("accelerate"):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, is_initialized
    if tracker is Tracker.TENSORBOARD:
        with importing("tensorboard"):
            import_module("torch.utils.tensorboard")
    if is_initialized():  # by an earlier training in the same program
        state = AcceleratorState()
        if (state.mixed_precision, state.device.type == "cpu") != (precision.value, use_cpu):
            AcceleratorState._reset_state(reset_partial_state=True)  # otherwise it would be refused
    accelerator = Accelerator(
        mixed_precision=precision.value,
        cpu=use_cpu,
        log_with=None if tracker is None else tracker.value,
        project_dir=None if folder is None else str(folder),
    )
    accelerator.gradient_accumulation_steps = 1  # the engine accumulates, whatever the launcher was told
    return accelerator


def report_to_tracker(accelerator: Accelerator, line: Mapping[str, float]) -> None:
    """Passes a line of the loss log on to the accelerator's tracker, as `loop.Hooks.report` gets it.

    With the first line, what an earlier run wrote of this and later iterations is hidden.
    """
    iteration = int(line["iteration"])
    if not accelerator.trackers:
        accelerator.init_trackers(TRACKED, init_kwargs={"tensorboard": {"purge_step": iteration}})
    accelerator.log({name: value for name, value in line.items() if name != "iteration"}, step=iteration)


@contextmanager
def stop_signals() -> Generator[threading.Event, None, None]:
    """Within the block, Ctrl-C and SIGTERM set the event instead of ending the program. A second Ctrl-C ends it.

    Outside the main thread, where Python handles no signals, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        # a launcher passes Ctrl-C on to processes that the terminal has already told: that is not a second one
        if stop.is_set() and number == signal.SIGINT and LAUNCHED not in os.environ:
            raise KeyboardInterrupt
        logger.warning("stopping after this iteration; the state will be saved")
        stop.set()

    previous = {name: signal.signal(getattr(signal, name), handle) for name in STOPPING_SIGNALS}
    try:
        yield stop
    finally:
        for name, handler in previous.items():
            signal.signal(getattr(signal, name), handler)
