"""The pictures that a set is built from: folders, tables, and WebDataset shards as img2dataset writes them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from ...fpga_core.errors import InvalidInputError
from ..tables import read_rows
from .places import file_place, place_of

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

BESIDE = {
    "txt": "caption_at",
    "json": "fields_at",
    "pose.json": "pose_at",
    "mask.png": "mask_at",
    "embedding.npy": "embedding_at",
}
"""What is given beside the picture `NAME.jpg`: the rest of the file's name -> what it is."""

COLUMNS = {
    "caption": ("caption", "text"),
    "source": ("source", "url"),
    "licence": ("licence", "license"),
    "watermark": ("watermark", "pwatermark"),
    "caption_score": ("caption_score", "similarity"),
}
"""What is given in a table or in the JSON of a picture -> the names of its column, of which the first that is there
counts. The second ones are img2dataset's and LAION's."""

FILE_COLUMNS = {
    "path": ("path", "file", "file_name", "image", "image_path"),
    "pose_at": ("pose",),
    "mask_at": ("mask",),
    "embedding_at": ("embedding",),
}
"""Columns of a table that name a file, relative to the table."""


@dataclass(frozen=True)
class Listed:
    """A picture of a source.

    Attributes:
        name: its name in the source.
        place: where it is (`places.py`); empty if there is none.
        given: what comes with it, by the names of `BESIDE` and `COLUMNS`; `fault` says why it cannot be used.
    """

    name: str
    place: str
    given: dict[str, Any] = field(default_factory=dict)


def list_pictures(sources: list[Path]) -> Iterator[Listed]:
    """Yields the pictures of all sources, always in the same order.

    Raises:
        InvalidInputError: a source is none of a folder, a table and a shard, or a table cannot be read.
    """
    for source in sources:
        if source.is_dir():
            yield from list_folder(source, source)
        elif source.suffix.lower() == ".tar" and source.is_file():
            yield from list_shard(source, source.name)
        elif source.suffix.lower() in TABLES and source.is_file():
            yield from list_table(source)
        else:
            endings = ", ".join(TABLES)
            raise InvalidInputError(f"name a folder, a shard (.tar) or a table ({endings}); '{source}' is none of them")


def list_folder(folder: Path, root: Path) -> Iterator[Listed]:
    """Yields the pictures of a folder and of its shards, then those of the folders in it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInputError(f"let this user read '{folder}': {error.strerror}") from error
    files = {entry.name: Path(entry.path) for entry in entries if entry.is_file()}
    for name, file in files.items():
        stem, ending = os.path.splitext(name)
        if ending.lower() == ".tar":
            yield from list_shard(file, file.relative_to(root).as_posix())
        elif is_picture(name):
            beside = {f"{stem}.{rest}": what for rest, what in BESIDE.items()}
            given = {what: file_place(files[other]) for other, what in beside.items() if other in files}
            yield Listed(file.relative_to(root).as_posix(), file_place(file), given)
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from list_folder(Path(entry.path), root)


def is_picture(name: str) -> bool:
    """True for a picture's file name, and not for that of a mask beside one."""
    return name.lower().endswith(PICTURES) and not name.startswith(".") and not name.lower().endswith(".mask.png")


def list_shard(shard: Path, name: str) -> Iterator[Listed]:
    """Yields the pictures of a WebDataset shard. If it is damaged, what comes before the damage is used."""
    members: list[tuple[str, int, int]] = []
    fault, modified = None, 0
    try:
        modified = shard.stat().st_mtime_ns
        with tarfile.open(shard, "r:") as tar:
            members += ((member.name, member.offset_data, member.size) for member in tar if member.isfile())
    except (OSError, tarfile.TarError) as error:
        fault = f"the shard cannot be read any further: {error}"

    def stem(member: tuple[str, int, int]) -> str:
        folder, slash, file = member[0].rpartition("/")
        return f"{folder}{slash}{file.partition('.')[0]}"

    for key, files in groupby(members, stem):
        places = {
            path[len(key) + 1 :].lower(): (path, place_of(shard, offset=offset, num_bytes=size, modified=modified))
            for path, offset, size in files
        }
        pictures = [place for rest, place in places.items() if f".{rest}" in PICTURES]
        beside = {what: places[rest][1] for rest, what in BESIDE.items() if rest in places}
        for path, place in pictures:
            yield Listed(f"{name}/{path}", place, beside)
    if fault is not None:
        yield Listed(name, "", {"fault": fault})


def list_table(table: Path) -> Iterator[Listed]:
    """Yields the pictures of a table."""
    for number, row in enumerate(read_rows(table, "pictures"), 1):
        files = {what: row[name] for what, names in FILE_COLUMNS.items() for name in names[::-1] if name in row}
        given = fields_of(row) | {what: file_place(table.parent / str(file)) for what, file in files.items()}
        given.pop("path", None)
        if "path" in files:
            yield Listed(str(files["path"]), file_place(table.parent / str(files["path"])), given)
        else:
            fault = f"row {number} has none of the columns {', '.join(FILE_COLUMNS['path'])}"
            yield Listed(f"{table.name}, row {number}", "", {"fault": fault})


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a table's row or a picture's JSON gives."""
    found: dict[str, Any] = {}
    for what, names in COLUMNS.items():
        value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        if value is not None:
            found[what] = value
    return found
