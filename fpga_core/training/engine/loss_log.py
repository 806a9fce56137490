"""The log of the losses: a file of JSON lines, one per iteration. Resuming cuts it back to the saved state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...boundaries import guarded, written_whole
from ...errors import TrainingCheckpointError

FILE = "losses.jsonl"

Line = Mapping[str, float]
"""`iteration` (from 0), `loss` and its parts, `learning_rate` and `gradient_norm` (before clipping)."""


class LossLog:
    """The log in the folder of a training.

    Args:
        folder: folder of the training; it exists.
        num_lines: iterations that have been done. Lines beyond them, from a run that was killed, are cut off.
    Raises:
        TrainingCheckpointError: some of those iterations are missing from the log, or it cannot be written.
    """

    def __init__(self, folder: Path, num_lines: int = 0) -> None:
        self._path = folder / FILE
        try:
            with self._path.open("a+b") as file:
                file.seek(0)
                kept = [line for line in file.readlines()[:num_lines] if line.endswith(b"\n")]
                file.truncate(sum(map(len, kept)))
        except OSError as error:
            raise _unwritable(self._path, error) from error
        if len(kept) < num_lines:
            raise TrainingCheckpointError(
                f"'{self._path}' has {len(kept)} lines, but the saved state is of iteration {num_lines}, so the log "
                "was changed; restore it, or choose another output folder to start again"
            )

    def add(self, line: Line) -> None:
        """Appends an iteration.

        Raises:
            TrainingCheckpointError: the disk is full.
        """
        try:
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def lines(self) -> list[dict[str, float]]:
        """Returns all iterations so far."""
        return read_losses(self._path)


def copy_losses(source: Path, target: Path) -> None:
    """Copies a training's log to the folder of another one, which goes on from its state.

    Raises:
        TrainingCheckpointError: it does not exist, or cannot be written.
    """
    try:
        lines = (source / FILE).read_bytes()
    except OSError as error:
        raise TrainingCheckpointError(
            f"'{source / FILE}' cannot be read: {error}; to start from a saved state, keep its log beside it"
        ) from error
    with written_whole(target / FILE, TrainingCheckpointError) as partial:
        partial.write_bytes(lines)


def read_losses(path: Path) -> list[dict[str, float]]:
    """The lines of a log, without a last one that was cut short."""
    advice = "restore it, or choose another output folder to start again"
    with guarded(TrainingCheckpointError, f"'{path}' cannot be read", advice=advice), path.open("rb") as file:
        return [json.loads(line) for line in file if line.endswith(b"\n")]


def as_loss_map(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Returns ComfyUI's LOSS_MAP, as its own training node returns it and its Plot Loss Graph reads it."""
    return {"loss": [line["loss"] for line in lines]}


def _unwritable(path: Path, error: OSError) -> TrainingCheckpointError:
    return TrainingCheckpointError(f"'{path}' cannot be written: {error}; free some disk space and run again to resume")
