"""What workers do with pictures. A task is made once in each worker and called with rows; it knows nothing of Daft.

Each task has a schema, which its columns of the result follow. `number` names the picture in every table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...fpga_core.faces.pack_download import file_sha256

Row = dict[str, Any]

TEXT, REAL, WHOLE, BYTES, REALS, WHOLES = "text", "real", "whole", "bytes", "reals", "wholes"
"""Kinds of columns: the engine turns them into Arrow's types."""


@dataclass(frozen=True)
class Task:
    """One step of a build that workers do.

    Attributes:
        name: names its folder of results.
        module: the module of this package whose `open_task(settings)` makes it.
        takes: the columns that it reads.
        gives: column -> kind: what it adds.
        settings: what its result depends on; JSON.
        models: option -> file or folder of a model.
        batch_size: how many rows a worker gets at a time.
    """

    name: str
    module: str
    takes: tuple[str, ...]
    gives: Mapping[str, str]
    settings: Mapping[str, Any]
    models: Mapping[str, Path]
    batch_size: int

    @property
    def arguments(self) -> str:
        """What `open_task` gets, as JSON."""
        return json.dumps({**self.settings, **{name: str(path.absolute()) for name, path in self.models.items()}})

    @property
    def fingerprint(self) -> str:
        """Names the task by everything that its results depend on, whatever the models' folders are called."""
        models = {name: content_hash(path) for name, path in self.models.items()}
        return hashlib.sha256(json.dumps([self.name, dict(self.settings), models]).encode()).hexdigest()


Rows = Callable[[Sequence[Row]], list[Row]]
"""Returns what a task gives for each row, in the same order."""


def content_hash(path: Path) -> str:
    """Returns a hash of a file, or of the names and contents of a folder's files."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = [f"{file.relative_to(path).as_posix()} {file_sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()
