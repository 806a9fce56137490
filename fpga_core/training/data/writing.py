"""Writes training sets: a folder of files, or WebDataset shards."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from ...boundaries import written_whole
from ...errors import InvalidInputError, TrainingDataError
from .reading import FORMAT, HEADER_FILE, VERSION
from .samples import ORIGIN_FILE, TrainingSample, encode_sample


def write_header(folder: Path, *, recogniser: str | None = None, source: str = "") -> None:
    """Writes the header, which holds what concerns the set as a whole.

    Args:
        folder: folder of the set; it exists.
        recogniser: hash of the recogniser of the samples' embeddings; None if no sample has one.
        source: where the data comes from, as free text.
    """
    header = {"format": FORMAT, "version": VERSION, "source": source}
    header |= {} if recogniser is None else {"recogniser": recogniser}
    _write(folder / HEADER_FILE, json.dumps(header, indent=1).encode())


def write_sample(folder: Path, sample: TrainingSample) -> None:
    """Writes a sample as separate files, `<key>.<modality>.<extension>`.

    Args:
        folder: folder of the set; it exists.
        sample: its key can name a folder inside, such as `a/000001`.
    Raises:
        InvalidInputError: the key cannot be used as a file name.
        TrainingDataError: a file cannot be written.
    """
    check_key(sample.key)
    for name, content in encode_sample(sample).items():
        _write(folder / f"{sample.key}.{name}", content)


class ShardWriter:
    """Writes shards `00000.tar`, `00001.tar`, ...: a context manager. A shard gets its name when it is complete.

    Args:
        folder: folder of the set; it exists.
        samples_per_shard: number of samples in each shard.
    """

    def __init__(self, folder: Path, *, samples_per_shard: int = 1000) -> None:
        self._folder = folder
        self._samples_per_shard = samples_per_shard
        self._num_samples = 0
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish_shard()
        elif self._tar is not None:
            self._tar.close()
            self._partial.unlink(missing_ok=True)

    def write(self, sample: TrainingSample) -> None:
        """Adds a sample.

        Raises:
            InvalidInputError: the key cannot be used as a file name.
            TrainingDataError: the shard cannot be written.
        """
        check_key(sample.key)
        try:
            if self._tar is None:
                self._tar = tarfile.open(self._partial, "w:", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            _add_files(self._tar, sample.key, encode_sample(sample))
        except OSError as error:
            raise TrainingDataError(f"'{self._partial}' cannot be written: {error}; free some disk space") from error
        self._num_samples += 1
        if self._num_samples % self._samples_per_shard == 0:
            self._finish_shard()

    @property
    def _path(self) -> Path:
        return self._folder / f"{max(self._num_samples - 1, 0) // self._samples_per_shard:05}.tar"

    @property
    def _partial(self) -> Path:
        return self._folder / "shard.part"

    def _finish_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        os.replace(self._partial, self._path)


def write_shard(path: Path, samples: Iterable[tuple[TrainingSample, Mapping[str, object]]]) -> int:
    """Writes one shard whole: `path` appears when it is complete. Equal samples give equal bytes.

    Args:
        path: the shard, `NAME.tar`; its folder exists.
        samples: samples, each with its origin, which is written beside it as JSON.
    Returns:
        The number of samples.
    Raises:
        InvalidInputError: a key cannot be used as a file name.
        TrainingDataError: the shard cannot be written.
    """
    num_samples = 0
    with (
        written_whole(path, TrainingDataError) as partial,
        tarfile.open(partial, "w:", format=tarfile.PAX_FORMAT) as tar,
    ):
        for sample, origin in samples:
            check_key(sample.key)
            text = json.dumps(origin, ensure_ascii=False, sort_keys=True)
            _add_files(tar, sample.key, {**encode_sample(sample), ORIGIN_FILE: text.encode()})
            num_samples += 1
    return num_samples


def check_key(key: str) -> None:
    """Raises unless file names can begin with a key: it has dots only in its folders and stays inside the set.

    Raises:
        InvalidInputError: it cannot; the message names the key.
    """
    parts = key.split("/")
    if not all(parts) or ".." in parts or "." in parts[-1] or "\\" in key or ":" in key:
        raise InvalidInputError(
            f"'{key}' cannot be the key of a sample, because file names begin with the key and end it at the first "
            "dot; use letters, digits, '-' and '_', and '/' for folders"
        )


def _add_files(tar: tarfile.TarFile, key: str, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        member = tarfile.TarInfo(f"{key}.{name}")  # the year 1970, so that equal samples give equal shards
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingDataError(f"'{path.parent}' cannot be created: {error}; choose another folder") from error
    with written_whole(path, TrainingDataError) as partial:
        partial.write_bytes(content)
