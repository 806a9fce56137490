"""Saved states of a training: all that it needs to go on as if it had never stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...boundaries import guarded, reason_of, written_whole
from ...errors import ResumeMismatchError, TrainingCheckpointError
from .nested import with_tensors

FORMAT = "fpga-training-state"
VERSION = 1
PATTERN = "checkpoint-*.pt"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state of a training after an iteration.

    Attributes:
        iteration: number of iterations that have been done, which is the number of the next one.
        settings: values that the loss curve depends on, name -> number or text.
        parameters: name -> trained parameter.
        average: name -> running mean; empty if none is kept.
        optimizer: the optimizer's state dict.
        scaler: the gradient scaler's state dict; None without one.
    """

    iteration: int
    settings: Mapping[str, Any]
    parameters: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any] | None = None


def write_state(folder: Path, state: TrainingState, num_kept: int) -> Path:
    """Writes a state as `checkpoint-<iteration>.pt`, whole or not at all, and deletes the oldest beyond `num_kept`.

    Raises:
        TrainingCheckpointError: it cannot be written; existing states are unchanged.
    """
    path = folder / f"checkpoint-{state.iteration:08}.pt"
    try:
        with written_whole(path, TrainingCheckpointError) as partial, partial.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **vars(state)}, file)
            file.flush()
            os.fsync(file.fileno())
    except TrainingCheckpointError as error:
        kept = newest_state(folder)
        raise TrainingCheckpointError(
            f"the state after iteration {state.iteration} cannot be written to '{folder}' "
            f"({reason_of(error.__cause__ or error)}); free some disk space and run again: training continues from "
            f"{(kept.name if kept else 'the beginning')}"
        ) from error
    for old in sorted(folder.glob(PATTERN))[:-num_kept]:
        old.unlink(missing_ok=True)
    return path


class StateWriter:
    """Writes saved states, one at a time.

    Args:
        folder, num_kept: as in `write_state`.
        in_background: whether a thread writes a copy of the state, so that training goes on meanwhile. Errors are then
            raised by the next call.
    """

    def __init__(self, folder: Path, num_kept: int, *, in_background: bool) -> None:
        self._folder = folder
        self._num_kept = num_kept
        self._pool = ThreadPoolExecutor(1, "fpga-training-states") if in_background else None
        self._pending: Future[Path] | None = None

    def write(self, state: TrainingState) -> None:
        """Writes a state, or begins to, when the one before is written; see `write_state`."""
        self.finish()
        if self._pool is None:
            write_state(self._folder, state, self._num_kept)
        else:
            copy = TrainingState(**with_tensors(vars(state), lambda tensor: tensor.detach().to("cpu", copy=True)))
            self._pending = self._pool.submit(write_state, self._folder, copy, self._num_kept)

    def finish(self) -> None:
        """Waits until the last state is written.

        Raises:
            TrainingCheckpointError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def newest_state(folder: Path) -> Path | None:
    """Returns the latest saved state in the folder of a training."""
    return max(folder.glob(PATTERN), default=None)


def read_state(path: Path) -> TrainingState:
    """Reads a saved state, its tensors on the CPU.

    Raises:
        TrainingCheckpointError: it is damaged, or not the state of a training.
    """
    advice = "delete it to continue from the state before it"
    with guarded(TrainingCheckpointError, f"'{path}' cannot be read", advice=advice):
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    version = fields.pop("version", None)
    if fields.pop("format", None) != FORMAT or not isinstance(version, int):
        raise TrainingCheckpointError(f"'{path}' is not the state of a training; move it out of the folder")
    if version > VERSION:
        raise TrainingCheckpointError(
            f"'{path}' has version {version}, which is newer than this pack can read; update the pack"
        )
    with guarded(TrainingCheckpointError, f"'{path}' is damaged", advice=advice):
        return TrainingState(**fields)


def check_settings(path: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises unless a training continues with the settings that it began with.

    Raises:
        ResumeMismatchError: it does not; the message lists every difference.
    """
    names = [name for name in {**saved, **given} if saved.get(name) != given.get(name)]
    if names:
        listed = "; ".join(
            f"{name} was {saved.get(name, 'not set')} and is now {given.get(name, 'not set')}" for name in names
        )
        raise ResumeMismatchError(
            f"the training in '{path.parent}' was begun with other settings: {listed}; restore those settings to "
            "resume, or choose another output folder to start again"
        )


def check_parameters(path: Path, saved: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises unless a state holds exactly the parameters that are trained.

    Raises:
        ResumeMismatchError: it does not; the message names the first difference and the number of all.
    """
    shapes = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (saved, given))
    before, now = shapes
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    if names:
        first = names[0]
        raise ResumeMismatchError(
            f"'{path}' does not hold the parameters that are trained now ({len(names)} differ): '{first}' was "
            f"{before.get(first, 'not there')} and is now {now.get(first, 'not there')}; choose the model that the "
            "training was begun with, or another output folder"
        )
