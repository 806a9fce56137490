"""The processes that train together, started by Hugging Face accelerate. It is imported only to train."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from ...packages import importing
from .settings import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

LAUNCHED = "LOCAL_RANK"
"""The environment variable that launchers set for the processes that they start."""

STOPPING_SIGNALS = ("SIGINT", "SIGTERM")

logger = logging.getLogger(__name__)


def start_processes(precision: Precision, use_cpu: bool) -> Accelerator:
    """What `accelerate launch` has started, or this process alone. Call it before models are loaded.

    Args:
        precision: precision of the computation.
        use_cpu: whether to leave the GPU alone.
    Returns:
        The accelerator; its `device` is this process's own.
    Raises:
        MissingPackageError: accelerate is not installed.
    """
    with importing("accelerate"):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, is_initialized
    if is_initialized():  # by an earlier training in the same program
        state = AcceleratorState()
        if (state.mixed_precision, state.device.type == "cpu") != (precision.value, use_cpu):
            AcceleratorState._reset_state(reset_partial_state=True)  # otherwise it would be refused
    accelerator = Accelerator(mixed_precision=precision.value, cpu=use_cpu)
    accelerator.gradient_accumulation_steps = 1  # the engine accumulates, whatever the launcher was told
    return accelerator


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
