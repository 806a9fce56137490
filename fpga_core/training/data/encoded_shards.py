"""An encoded training set on the disk: arrays that become batches without decoding or hashing a picture."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from ...boundaries import guarded, written_whole
from ...errors import TrainingDataError
from ...shapes import PIXELS_PER_LATENT
from .batch import TrainingBatch
from .encoded_set import DRAWINGS, MIB, EncodedSet, batch_of
from .encodings import Encoding, content_key
from .reading import StoredFile

SAMPLES_PER_SHARD = 256
COVERAGE, COLOURS = ".coverage", ".colours"
ADVICE = "delete it, and it is encoded again"


class EncodedShards:
    """The batches of an encoded set; a `batch.BatchSource`. docs/formats.md specifies the files.

    A shard is named after the models and the samples in it. If a sample changes, its shard alone is encoded again.

    Args:
        source: encodes what is not stored yet; it needs no store of its own.
        folder: for the shards; created if it does not exist.
        memory_mib: for samples that are kept in memory, as they are stored.
        text_dtype: dtype of the stored text; float16 takes half the space.
    """

    def __init__(
        self, source: EncodedSet, folder: Path, *, memory_mib: int = 1024, text_dtype: torch.dtype = torch.float32
    ) -> None:
        self._source = source
        self._folder = folder
        self._free_bytes = memory_mib * MIB
        self._text_dtype = text_dtype
        self._kept: dict[int, bytes] = {}
        self._members: dict[int, tuple[Path, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._source)

    @property
    def fingerprint(self) -> str:
        """A name of the set, the models, and the dtype of the text if it is not float32."""
        own = self._source.fingerprint
        return own if self._text_dtype is torch.float32 else f"{own} {self._text_dtype}"

    def prepare(
        self, *, process: int = 0, num_processes: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Writes this process's share of the shards; see `EncodedSet.prepare`.

        Raises:
            TrainingDataError: a sample cannot be used, or a shard cannot be written; the message names it.
        """
        if self._mark.exists():
            return
        shards = range(process, -(-len(self) // SAMPLES_PER_SHARD), num_processes)
        total = sum(len(self._samples(shard)) for shard in shards)
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        for shard in shards:
            self._complete(shard, count)

    def finish_preparing(self) -> None:
        """Notes that the whole set has been encoded, so that the next training on it starts at once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mark.touch()

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """Returns the samples with these numbers, on the CPU.

        Raises:
            TrainingDataError: a shard is damaged, or a sample that has changed cannot be used.
        """
        records = [self._record(index) for index in indices]
        *_, height, width = records[0]["latents"].shape
        size = (height * PIXELS_PER_LATENT, width * PIXELS_PER_LATENT)
        drawings = {name: _drawn([_unpacked(record, name) for record in records], size) for name in DRAWINGS}
        return batch_of(records, self._source.null, **drawings)

    @property
    def _mark(self) -> Path:
        return self._folder / f"{self.fingerprint}.done".replace(" ", "-")

    def _samples(self, shard: int) -> range:
        first = shard * SAMPLES_PER_SHARD
        return range(first, min(first + SAMPLES_PER_SHARD, len(self)))

    def _record(self, index: int) -> Encoding:
        stored = self._kept.get(index)
        if stored is None:
            stored = self._stored(*divmod(index, SAMPLES_PER_SHARD))
            if len(stored) <= self._free_bytes:
                self._free_bytes -= len(stored)
                self._kept[index] = stored
        return load(stored)

    def _stored(self, shard: int, row: int) -> bytes:
        if shard not in self._members:
            path = self._complete(shard)
            with guarded(TrainingDataError, f"'{path}' cannot be read", advice=ADVICE), tarfile.open(path, "r:") as tar:
                self._members[shard] = path, np.array([(member.offset_data, member.size) for member in tar])
        path, places = self._members[shard]
        with guarded(TrainingDataError, f"'{path}' cannot be read", advice=ADVICE):
            return StoredFile(path, *map(int, places[row])).read()

    def _complete(self, shard: int, count: Callable[[], None] = lambda: None) -> Path:
        """Returns the path of a shard, which is written if it is not there."""
        samples = self._samples(shard)
        source = self._source
        name = content_key(source.fingerprint, str(self._text_dtype), *map(source.content_name, samples))
        path = self._folder / f"{name[:32]}.tar"
        if path.exists():
            for _ in samples:
                count()
            return path
        failure = f"encodings cannot be saved in '{self._folder}'"
        with guarded(TrainingDataError, failure, advice="choose another folder for them"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path, TrainingDataError) as partial, tarfile.open(partial, "w:") as tar:
            for index in samples:
                content = save(self._packed(source.encode(index)))
                member = tarfile.TarInfo(f"{index:08}.safetensors")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                count()
        return path

    def _packed(self, encoded: Encoding) -> Encoding:
        record = {**encoded, "text": encoded["text"].to(self._text_dtype)}
        for name in DRAWINGS:
            picture = record.pop(name).flatten(1)  # (3, height x width)
            lit = picture.bool().any(dim=0)
            record[name + COVERAGE] = torch.as_tensor(np.packbits(lit.numpy()))
            record[name + COLOURS] = picture[:, lit].clone()
        return record


def _unpacked(record: Encoding, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a drawing that are not black, (num,), and their colours, (3, num) uint8."""
    lit: NDArray[np.uint8] = np.unpackbits(record[name + COVERAGE].numpy())
    return np.flatnonzero(np.frombuffer(lit, np.bool_)), record[name + COLOURS].numpy()


def _drawn(drawings: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int]) -> Tensor:
    """Returns drawings on black, (batch, 3, height, width) in [0, 1]."""
    canvas = np.zeros((len(drawings), 3, size[0] * size[1]), np.float32)
    for picture, (pixels, colours) in zip(canvas, drawings, strict=True):
        values = colours.astype(np.float32) / 255
        for channel in range(3):
            picture[channel][pixels] = values[channel]
    return torch.as_tensor(canvas).reshape(-1, 3, *size)
