"""Mask Guided Face Fusion (MGFF): the restored face takes its colours from the cached run, and the rest is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..errors import InvalidInputError
from .adain import Moments, adain, masked_moments

CPU = torch.device("cpu")


class StyleSource(str, Enum):
    """Where on the cached features the mean and deviation for the restored face are measured.

    FACE: inside the mask, i.e. the low-level colour of the broken face itself (as the paper's text asks).
    SURROUNDINGS: outside the mask (Alg. 1 read literally: `AdaIN(SA_R * M, SA_C * (1 - M))`).
    OFF: nowhere; the restored face keeps its own moments.
    """

    FACE = "face"
    SURROUNDINGS = "surroundings"
    OFF = "off"


@dataclass(frozen=True, kw_only=True)
class FusionSettings:
    """How strongly, when and where the cached run is fused into the restoration. The defaults are Alg. 1 as it stands.

    Attributes:
        style_source: the source of the face's moments.
        style_strength: from 0 (its own moments) to 1 (those of the style).
        attention_strength: how far self-attention outputs move to the fused ones; 0 leaves them unchanged (line 6).
        latent_strength: the same for the latent after each step (line 8).
        start_percent, end_percent: part of the restoration's steps that are fused, as fractions; 0 is the noisiest.
        first_layer, last_layer: the first and the last self-attention layer to fuse, counted from 0 in running order;
            None is the last of the UNet.
    """

    style_source: StyleSource = StyleSource.FACE
    style_strength: float = 1.0
    attention_strength: float = 1.0
    latent_strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    first_layer: int = 0
    last_layer: int | None = None

    def __post_init__(self) -> None:
        for name in ("style_strength", "attention_strength", "latent_strength", "start_percent", "end_percent"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.start_percent > self.end_percent:
            raise InvalidInputError(
                f"fusion starts at {self.start_percent:.0%} of the steps but ends at {self.end_percent:.0%}; "
                "start_percent must not exceed end_percent"
            )

    @property
    def sources(self) -> tuple[StyleSource, ...]:
        """The style sources that are measured: one or none."""
        return () if self.style_source is StyleSource.OFF else (self.style_source,)

    def covers_step(self, step: int, num_steps: int) -> bool:
        """Returns whether restoration step t (`num_steps` is the noisiest, 1 the last) is fused."""
        progress = (num_steps - step) / num_steps
        return self.start_percent <= progress < self.end_percent

    def covers_layer(self, layer: int) -> bool:
        return self.first_layer <= layer and (self.last_layer is None or layer <= self.last_layer)


@dataclass(frozen=True, eq=False)
class GridMask:
    """A mask on a grid of cells, and the cells that it touches. Only these are computed.

    Attributes:
        weights: M in [0, 1], (batch, cells, 1) float32.
        inside: (num_inside,) cells with a weight above 0 in any item of the batch.
    """

    weights: Tensor
    inside: Tensor

    @classmethod
    def of(cls, weights: Tensor, device: torch.device = CPU) -> GridMask:
        """A mask on a device, from weights, (batch, cells, 1), on the CPU, so that the device need not wait."""
        inside = (weights > 0).any(dim=0)[:, 0].nonzero()[:, 0]
        return cls(weights.float().to(device), inside.to(device))

    def moments(self, features: Tensor, source: StyleSource) -> Moments:
        """Returns the mean and deviation of features, (..., batch, cells, channels), over a style source."""
        if source is StyleSource.FACE:
            return masked_moments(features.index_select(-2, self.inside), self.weights[:, self.inside])
        return masked_moments(features, 1 - self.weights)


def fuse(
    restored: Tensor,
    background: Tensor,
    *,
    mask: GridMask,
    style: Moments | None,
    style_strength: float = 1.0,
    strength: float = 1.0,
) -> Tensor:
    """Computes one Mask Guided Face Fusion: `M * AdaIN(F; style) + (1 - M) * background`.

    Args:
        restored: F, features of the restoration, (..., batch, cells, channels), any float dtype.
        background: the features outside the mask, broadcastable to `restored`: the cached features, or `restored`
            itself if only statistics were kept.
        mask: M.
        style: moments for the face; None keeps its own.
        style_strength: weight of AdaIN inside the mask, 0-1.
        strength: weight of the whole fusion, 0-1; at 1 and M = 0 the result is `background` exactly.
    Returns:
        The shape, dtype and device of `restored`.
    Source: FPGA Alg. 1, lines 6 and 8; the explicit `(1 - M)` term keeps the background (docs/restoration.md).
    """
    background = background.to(restored.dtype).expand_as(restored)
    fused = background.clone() if strength == 1 else torch.lerp(restored, background, strength)
    own, weights = restored.index_select(-2, mask.inside).float(), mask.weights[:, mask.inside]
    styled = own
    if style is not None:
        styled = torch.lerp(own, adain(own, masked_moments(own, weights), style), style_strength)
    face = torch.lerp(background.index_select(-2, mask.inside).float(), styled, weights)
    return fused.index_copy_(-2, mask.inside, torch.lerp(own, face, strength).to(restored.dtype))


def as_cells(latent: Tensor) -> Tensor:
    """Converts (batch, channels, height, width) to (batch, cells, channels), the layout of the fusion."""
    return latent.flatten(2).mT


def fuse_latent(latent: Tensor, cached: Tensor, *, mask: GridMask, settings: FusionSettings) -> Tensor:
    """Applies MGFF to the latent after a step, with the cached latent of the same noise level.

    Args:
        latent, cached: Z and its inversion, (batch, channels, height, width), in sigma space.
        mask: M on the latent's cells.
        settings: style source and strengths.
    Returns:
        The fused latent, the shape of `latent`.
    Source: FPGA Alg. 1, line 8.
    """
    cells, background = as_cells(latent), as_cells(cached)
    is_styled = settings.style_source is not StyleSource.OFF
    style = mask.moments(background, settings.style_source) if is_styled else None
    fused = fuse(
        cells,
        background,
        mask=mask,
        style=style,
        style_strength=settings.style_strength,
        strength=settings.latent_strength,
    )
    return fused.mT.reshape(latent.shape)
