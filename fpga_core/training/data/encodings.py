"""Encodings of training data, stored under a hash of what was encoded, so that each is made only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from ...checkpoints import read_safetensors, write_safetensors
from ...errors import CheckpointError, TrainingDataError

Encoding = dict[str, Tensor]


class EncodingStore:
    """Named tensors by key, in a folder or in memory.

    Several processes may use one folder at once: a file appears when it is complete.

    Args:
        folder: created if it does not exist; None: memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, Encoding] = {}

    def get(self, key: str, compute: Callable[[], Encoding]) -> Encoding:
        """The encoding of this key, computed if it is not stored yet.

        Raises:
            TrainingDataError: the folder cannot be written.
        """
        if self._folder is None:
            if key not in self._memory:
                self._memory[key] = compute()
            return self._memory[key]
        path = self._path(self._folder, key)
        if path.exists():
            return read_safetensors(path)[0]
        encoding = compute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_safetensors(path, encoding, {})
        except (OSError, CheckpointError) as error:
            raise TrainingDataError(
                f"encodings cannot be saved in '{self._folder}': {error}; choose another folder for them"
            ) from error
        return encoding

    def is_marked(self, key: str) -> bool:
        """Whether everything that `key` stands for has been encoded; False for a store in memory."""
        return self._folder is not None and (self._folder / f"{key}.done").exists()

    def mark(self, key: str) -> None:
        """Records that everything that `key` stands for is encoded."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{key}.done").touch()

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"


def content_key(*parts: str | np.ndarray) -> str:
    """Returns the SHA-256 of texts and pictures, which is equal for equal contents."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        shape = "" if isinstance(part, str) else f"{part.shape}{part.dtype}"
        digest.update(hashlib.sha256(shape.encode() + content).digest())
    return digest.hexdigest()
