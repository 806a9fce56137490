"""The input of one training step: the six modalities of IDZoom, encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from ...errors import ShapeMismatchError
from ...shapes import PIXELS_PER_LATENT, Extent

EMBEDDING_DIM = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBatch:
    """Pictures of one person each with all their modalities. All tensors are float32 and on one device.

    Attributes:
        latents: (batch, channels, height, width), in the model's own scale (ComfyUI's `process_latent_in` is applied).
        text: embedded captions, (batch, num_tokens, context_dim).
        null_text: the embedded empty caption, (1, num_tokens, context_dim).
        skeleton: drawn bodies on black, (batch, 3, 8 height, 8 width) in [0, 1].
        landmarks: drawn face landmarks on black, shape and range of `skeleton`.
        embeddings: embedding of each face as the recogniser returned it, not normalised, (batch, 512).
        face_masks: coverage of the face region in [0, 1], latent pixels, (batch, 1, height, width).
        clip_features: penultimate hidden states of CLIP-Vision, (batch, num_features, clip_dim), or None.
        pooled: pooled captions, (batch, pooled_dim), for a model that reads them, as SDXL does; else None.
        null_pooled: the pooled empty caption, (1, pooled_dim); None without `pooled`.
    Raises:
        ShapeMismatchError: the tensors do not belong together.
    """

    latents: Tensor
    text: Tensor
    null_text: Tensor
    skeleton: Tensor
    landmarks: Tensor
    embeddings: Tensor
    face_masks: Tensor
    clip_features: Tensor | None = None
    pooled: Tensor | None = None
    null_pooled: Tensor | None = None

    def __post_init__(self) -> None:
        if self.latents.ndim != 4:
            raise ShapeMismatchError(
                f"latents are {tuple(self.latents.shape)}; they must be (batch, channels, height, width)"
            )
        batch, _, height, width = self.latents.shape
        picture = (batch, 3, height * PIXELS_PER_LATENT, width * PIXELS_PER_LATENT)
        expected: dict[str, tuple[int, ...]] = {
            "skeleton": picture,
            "landmarks": picture,
            "embeddings": (batch, EMBEDDING_DIM),
            "face_masks": (batch, 1, height, width),
            "text": (batch, *self.text.shape[1:]),
            "null_text": (1, *self.text.shape[1:]),
        }
        if self.clip_features is not None:
            expected["clip_features"] = (batch, *self.clip_features.shape[1:])
        if self.pooled is not None:
            expected |= {"pooled": (batch, *self.pooled.shape[1:]), "null_pooled": (1, *self.pooled.shape[1:])}
        for name, shape in expected.items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ShapeMismatchError(
                    f"{name} of the batch are {found}; latents of {tuple(self.latents.shape)} and text of "
                    f"{tuple(self.text.shape)} need {shape}"
                )

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def extent(self) -> Extent:
        """The width and height of the latents."""
        return Extent(self.latents.shape[-1], self.latents.shape[-2])

    @property
    def device(self) -> torch.device:
        return self.latents.device

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Returns the batch on another device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})


class BatchSource(Protocol):
    """An encoded training set, such as `encoded_set.EncodedSet`."""

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    @property
    def fingerprint(self) -> str:
        """Returns a name of the set. A training resumes only on the set that it began with."""
        ...

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """Returns the samples with these numbers, on any device. Another thread calls it, one batch ahead."""
        ...
