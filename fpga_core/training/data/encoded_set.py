"""A training set as batches: pictures as latents, captions as embedded text, and faces as embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...shapes import PIXELS_PER_LATENT
from .batch import TrainingBatch
from .encodings import Encoding, EncodingStore, content_key
from .reading import TrainingSet
from .samples import TrainingSample

MIB = 2**20
NO_CAPTION = ""
DRAWINGS = ("skeleton", "landmarks")


class SampleEncoder(Protocol):
    """The frozen models that make a sample what a network sees. `comfy.encoding.ComfyEncoder` wraps ComfyUI's.

    The keys name the models. Equal content is encoded only once by equal models.
    """

    @property
    def image_key(self) -> str: ...

    @property
    def text_key(self) -> str: ...

    @property
    def face_key(self) -> str: ...

    def encode_image(self, image: np.ndarray) -> Tensor:
        """Encodes (height, width, 3) uint8 as latents, (channels, height / 8, width / 8) float32, in model scale."""
        ...

    def encode_caption(self, caption: str) -> Tensor:
        """(num_tokens, context_dim) float32, with the same number of tokens for every caption."""
        ...

    def encode_pooled(self, caption: str) -> Tensor | None:
        """Returns the pooled caption, (pooled_dim,) float32, if the model reads it; else None."""
        ...

    def encode_face(self, sample: TrainingSample) -> Encoding:
        """Returns "embedding", (512,), and, with a CLIP-Vision model, "clip", (num_features, clip_dim); float32."""
        ...


class EncodedSet:
    """The batches of a training set; a `batch.BatchSource`.

    Args:
        data: the set.
        encoder: the models.
        store: keeps the encodings; None keeps nothing.
        memory_mib: for samples that are kept decoded; a set that fits is decoded only once.
    """

    def __init__(
        self, data: TrainingSet, encoder: SampleEncoder, store: EncodingStore | None, *, memory_mib: int = 1024
    ) -> None:
        self._data = data
        self._encoder = encoder
        self._store = store
        self._free_bytes = memory_mib * MIB
        self._kept: dict[int, Encoding] = {}
        self.null = self._encode_caption(NO_CAPTION)
        """The empty caption: "text", and "pooled" for a model that reads it."""

    def __len__(self) -> int:
        return len(self._data)

    @property
    def fingerprint(self) -> str:
        """A name of the set and the models, on which the loss curve depends."""
        encoder = self._encoder
        return content_key(self._data.fingerprint, encoder.image_key, encoder.text_key, encoder.face_key)[:16]

    def prepare(
        self, *, process: int = 0, num_processes: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Encodes this process's share of the set, so that the models can leave the memory before training begins.

        It skips what has been encoded before. Call `finish_preparing` when all processes are done.

        Args:
            process, num_processes: the share of this process.
            progress: called with the number of samples that are done, and of all in this share.
        Raises:
            TrainingDataError: a sample cannot be used; the message names it.
        """
        if self._store is not None and self._store.is_marked(self.fingerprint):
            return
        share = range(process, len(self), num_processes)
        for number, index in enumerate(share, start=1):
            self._sample(index)
            if progress is not None:
                progress(number, len(share))

    def finish_preparing(self) -> None:
        """Notes that the whole set has been encoded, so that the next training on it starts at once."""
        if self._store is not None:
            self._store.mark(self.fingerprint)

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """Returns the samples with these numbers, on the CPU.

        Raises:
            TrainingDataError: a sample cannot be used; the message names it.
        """
        samples = [self._sample(index) for index in indices]
        drawings = {name: torch.stack([s[name] for s in samples]).float() / 255 for name in DRAWINGS}
        return batch_of(samples, self.null, **drawings)

    def encode(self, index: int) -> Encoding:
        """Returns all tensors of a sample; drawings are (3, height, width) uint8.

        Raises:
            TrainingDataError: the sample cannot be used; the message names it.
        """
        return self._encode(self._data.read(index))

    def content_name(self, index: int) -> str:
        """Returns a name of what a sample holds, without decoding it; see `TrainingSet.content_name`."""
        return self._data.content_name(index)

    def _sample(self, index: int) -> Encoding:
        if index not in self._kept:
            encoded = self.encode(index)
            num_bytes = sum(tensor.nbytes for tensor in encoded.values())
            if num_bytes > self._free_bytes:
                return encoded
            self._free_bytes -= num_bytes
            self._kept[index] = encoded
        return self._kept[index]

    def _encode(self, sample: TrainingSample) -> Encoding:
        encoder = self._encoder
        stored = np.zeros(0) if sample.embedding is None else sample.embedding
        face_key = content_key("face", encoder.face_key, sample.face, stored)
        image_key = content_key("image", encoder.image_key, sample.image)
        mask = torch.as_tensor(sample.mask).float()[None] / 255
        return {
            **self._stored(image_key, lambda: {"latents": encoder.encode_image(sample.image)}),
            **self._stored(face_key, lambda: encoder.encode_face(sample)),
            **self._encode_caption(sample.caption),
            "skeleton": torch.as_tensor(sample.skeleton).movedim(-1, 0),  # HWC -> CHW
            "landmarks": torch.as_tensor(sample.landmarks).movedim(-1, 0),  # HWC -> CHW
            "face_mask": functional.avg_pool2d(mask, PIXELS_PER_LATENT),
        }

    def _encode_caption(self, caption: str) -> Encoding:
        def encode() -> Encoding:
            text, pooled = self._encoder.encode_caption(caption), self._encoder.encode_pooled(caption)
            return {"text": text} if pooled is None else {"text": text, "pooled": pooled}

        return self._stored(content_key("text", self._encoder.text_key, caption), encode)

    def _stored(self, key: str, compute: Callable[[], Encoding]) -> Encoding:
        return compute() if self._store is None else self._store.get(key, compute)


def batch_of(samples: Sequence[Encoding], null: Encoding, *, skeleton: Tensor, landmarks: Tensor) -> TrainingBatch:
    """Makes a batch of encoded samples.

    Args:
        samples: their tensors.
        null: those of the empty caption.
        skeleton, landmarks: their drawings, (batch, 3, height, width) in [0, 1].
    """

    def stack(name: str) -> Tensor:
        return torch.stack([sample[name] for sample in samples]).float()

    return TrainingBatch(
        latents=stack("latents"),
        text=stack("text"),
        null_text=null["text"][None],
        skeleton=skeleton,
        landmarks=landmarks,
        embeddings=stack("embedding"),
        face_masks=stack("face_mask"),
        clip_features=stack("clip") if "clip" in samples[0] else None,
        pooled=stack("pooled") if "pooled" in samples[0] else None,
        null_pooled=null["pooled"][None] if "pooled" in null else None,
    )
