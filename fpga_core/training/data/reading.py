"""Training sets: a folder of samples or of WebDataset shards, read in any order. docs/formats.md specifies both."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...boundaries import guarded
from ...checkpoints import list_names
from ...errors import TrainingDataError
from ...shapes import Extent
from .samples import ORIGIN_FILE, Modality, SampleFiles, TrainingSample, modality_of, split_name

HEADER_FILE = "dataset.json"
FORMAT = "fpga-training-data"
VERSION = 1

SMALL_BYTES = 4096
"""Files up to this size, captions and embeddings, are compared by their content."""


@dataclass(frozen=True)
class StoredFile:
    """The place of one file of a sample: a separate file, or a part of a shard.

    Attributes:
        path: the file, or the shard.
        offset: offset of the first byte.
        num_bytes: number of bytes; None means all.
    """

    path: Path
    offset: int = 0
    num_bytes: int | None = None

    @property
    def size(self) -> int:
        """Number of bytes, which is asked of the disk if it is a separate file."""
        return self.path.stat().st_size if self.num_bytes is None else self.num_bytes

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read() if self.num_bytes is None else file.read(self.num_bytes)


class TrainingSet:
    """The samples of a folder, by number. Each is checked when it is read.

    Samples are in the order of their keys, so that the same files give the same set on every machine.

    Args:
        folder: the folder of the samples' files, or of shards (`*.tar`).
        multiple_px: both sides of every picture must be multiples of this (`TrainingSample.check`).
    Raises:
        TrainingDataError: the folder is missing, holds no samples, or a shard or the header cannot be read.
    """

    def __init__(self, folder: Path, *, multiple_px: int = 8) -> None:
        if not folder.is_dir():
            raise TrainingDataError(f"the data folder '{folder}' does not exist; check its name")
        self.folder = folder
        self.multiple_px = multiple_px
        self.header = _read_header(folder)
        shards = sorted(folder.glob("*.tar"))
        samples, left_out = _index_shards(shards) if shards else _index_files(folder)
        if shards:  # separate files count only without shards
            left_out += [f"{key}.{name}" for key, files in _index_files(folder)[0].items() for name in files]
        self.left_out = tuple(sorted(left_out))
        """The files that belong to no sample by their names."""
        if not samples:
            raise TrainingDataError(
                f"'{folder}' holds no training samples: neither shards (*.tar) nor files such as 000001.image.png with "
                "000001.caption.txt, .skeleton.png, .face.png, .landmarks.png and .mask.png; see docs/formats.md"
            )
        self._samples = [(key, samples[key]) for key in sorted(samples)]
        self._extent: Extent | None = None

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self._samples]

    @property
    def note(self) -> str:
        """What to tell the user about files that were left out; empty if there are none."""
        if not self.left_out:
            return ""
        count = "1 file belongs" if len(self.left_out) == 1 else f"{len(self.left_out)} files belong"
        return f"{count} to no sample by its name: {list_names(self.left_out)}"

    @property
    def recogniser(self) -> str | None:
        """Hash of the recogniser that the stored embeddings come from, if the header names it."""
        return self.header.get("recogniser")

    @property
    def fingerprint(self) -> str:
        """Names the set by its samples' keys. A training resumes only on the set that it began with."""
        return hashlib.sha256("\n".join(self.keys).encode()).hexdigest()[:16]

    @property
    def extent(self) -> Extent:
        """The size of all pictures, which is that of the first sample."""
        if self._extent is None:
            height, width = self.files(0).picture(Modality.IMAGE).shape[:2]
            self._extent = Extent(width, height)
        return self._extent

    def files(self, index: int) -> SampleFiles:
        """The contents of a sample's files, not yet decoded.

        Raises:
            TrainingDataError: a modality is missing, or a file cannot be read; the message names the sample.
        """
        key, files = self._samples[index]
        try:
            contents = {name: file.read() for name, file in files.items()}
        except OSError as error:
            raise TrainingDataError(f"sample '{key}' cannot be read: {error}; check the disk") from error
        return SampleFiles.from_contents(key, contents)

    def content_name(self, index: int) -> str:
        """Returns what tells a sample from any other: its key, and each file's size, and its content if it is small.

        Pictures are known by their size in bytes, which changes whenever a picture is saved anew.

        Raises:
            TrainingDataError: a file cannot be read.
        """
        key, files = self._samples[index]
        digest = hashlib.sha256(key.encode())
        try:
            for name, file in sorted(files.items()):
                digest.update(f"\n{name} {file.size} ".encode())
                if file.size <= SMALL_BYTES:
                    digest.update(file.read())
        except OSError as error:
            raise TrainingDataError(f"sample '{key}' cannot be read: {error}; check the disk") from error
        return digest.hexdigest()

    def read(self, index: int) -> TrainingSample:
        """Reads and checks a sample.

        Raises:
            TrainingDataError: it is incomplete, unreadable, or differs in size from the first; the message names the
                sample.
        """
        sample = self.files(index).decode()
        sample.check(self.multiple_px)
        if sample.extent != self.extent:
            raise TrainingDataError(
                f"sample '{sample.key}' is {sample.extent}, but the first one ('{self._samples[0][0]}') is "
                f"{self.extent}; all samples of a set must have the same size: crop or resize it"
            )
        return sample


def faults(data: TrainingSet, progress: Callable[[int, int], None] | None = None) -> Iterator[str]:
    """Reads every sample and reports what is wrong with each that cannot be used.

    Args:
        data: the set.
        progress: called with the number of samples that have been read, and of all samples.
    """
    for index in range(len(data)):
        try:
            data.read(index)
        except TrainingDataError as error:
            yield str(error)
        if progress is not None:
            progress(index + 1, len(data))


def _read_header(folder: Path) -> Mapping[str, Any]:
    path = folder / HEADER_FILE
    if not path.exists():
        return {}
    with guarded(TrainingDataError, f"'{path}' cannot be read", advice="write it again or delete it"):
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    header = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    if header.get("format") != FORMAT or not isinstance(header.get("version"), int):
        raise TrainingDataError(f"'{path}' is not the header of a training set; see docs/formats.md, or delete it")
    if header["version"] > VERSION:
        raise TrainingDataError(
            f"'{path}' has version {header['version']}, which is newer than this pack can read; update the pack"
        )
    return header


def _index_files(folder: Path) -> tuple[dict[str, dict[str, StoredFile]], list[str]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return _grouped((path.relative_to(folder).as_posix(), StoredFile(path)) for path in paths)


def _index_shards(shards: list[Path]) -> tuple[dict[str, dict[str, StoredFile]], list[str]]:
    samples: dict[str, dict[str, StoredFile]] = {}
    left_out: list[str] = []
    for shard in shards:
        advice = "it must be an uncompressed tar file: write or download it again"
        with guarded(TrainingDataError, f"the shard '{shard.name}' cannot be read", advice=advice):
            with tarfile.open(shard, "r:") as tar:
                files = [member for member in tar if member.isfile()]
            members = [(member.name, StoredFile(shard, member.offset_data, member.size)) for member in files]
        found, others = _grouped(members)
        left_out += [f"{shard.name}/{path}" for path in others]
        if repeated := sorted(found.keys() & samples.keys()):
            raise TrainingDataError(
                f"sample '{repeated[0]}' is in '{shard.name}' and in an earlier shard; keys must be unique in a set: "
                "rename or remove one"
            )
        samples |= found
    return samples, left_out


def _grouped(
    files: Iterator[tuple[str, StoredFile]] | list[tuple[str, StoredFile]],
) -> tuple[dict[str, dict[str, StoredFile]], list[str]]:
    """Returns the files of each sample, and the names of all others. A key may hold dots: IMG_2024.01.05.image.png."""
    samples: dict[str, dict[str, StoredFile]] = {}
    left_out: list[str] = []
    for path, file in files:
        parent, slash, name = path.removeprefix("./").rpartition("/")
        stem, rest = split_name(name)
        if stem and modality_of(rest) is not None:
            samples.setdefault(f"{parent}{slash}{stem}", {})[rest] = file
        elif path != HEADER_FILE and rest != ORIGIN_FILE and not name.startswith("."):
            left_out.append(path)
    return samples, left_out
