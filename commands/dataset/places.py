"""The place of a picture on the disk: a file, or a part of a shard."""

from __future__ import annotations

import re
from pathlib import Path

from ...fpga_core.errors import TrainingDataError

PLACE = re.compile(r"(.*)#(\d+)\+(\d+)@\d+", re.DOTALL)


def place_of(path: Path, *, offset: int, num_bytes: int, modified: int) -> str:
    """Returns a place as text: `path#offset+bytes@modified`. A file that was changed is another place."""
    return f"{path.absolute()}#{offset}+{num_bytes}@{modified}"


def file_place(path: Path) -> str:
    """Returns the place of a whole file, which need not exist."""
    try:
        status = path.stat()
    except OSError:
        return place_of(path, offset=0, num_bytes=0, modified=0)
    return place_of(path, offset=0, num_bytes=status.st_size, modified=status.st_mtime_ns)


def read_place(place: str) -> bytes:
    """Returns the bytes at a place.

    Raises:
        TrainingDataError: the file cannot be read, or has become shorter.
    """
    match = PLACE.fullmatch(place)
    if match is None:
        raise TrainingDataError(f"'{place}' names no file")
    path, offset, num_bytes = match[1], int(match[2]), int(match[3])
    try:
        with Path(path).open("rb") as file:
            file.seek(offset)
            content = file.read(num_bytes)
    except OSError as error:
        raise TrainingDataError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if len(content) != num_bytes:
        raise TrainingDataError(f"'{path}' was changed while the set was built")
    return content
