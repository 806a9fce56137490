"""Plans what an inversion records and how large that is, from shapes, before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor

from ..block_slots import BlockSlot
from ..errors import ShapeMismatchError
from .fusion import FusionSettings, StyleSource

MIB = 1 << 20


STYLE_SOURCES = (StyleSource.FACE, StyleSource.SURROUNDINGS)


class CacheMode(str, Enum):
    """What is kept of each self-attention output.

    FULL: the map itself, which is replayed outside the mask; hundreds of MiB per face.
    STATISTICS: its mean and deviation over the style sources; the background then comes from the latents alone.
    AUTO: full where one face fits the budget, else statistics; `fitting_mode` decides.
    """

    FULL = "full"
    STATISTICS = "statistics"
    AUTO = "auto"


@dataclass(frozen=True)
class AttentionLayer:
    """A self-attention layer and the shape of its output for one item: `num_tokens` x `channels`."""

    slot: BlockSlot
    num_tokens: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """What a run will record, known from shapes before it starts.

    Attributes:
        mode: maps or statistics.
        layers: the layers that are recorded.
        steps: the steps t (1 to `num_steps`) at which they are recorded.
        num_steps: T; T + 1 latents are kept, from Z_0 to Z_T.
        latent_shape: (batch, channels, height, width).
        dtype: dtype of stored maps; latents and statistics are always float32.
        sources: the style sources whose statistics are kept in statistics mode.
    """

    mode: CacheMode
    layers: tuple[AttentionLayer, ...]
    steps: frozenset[int]
    num_steps: int
    latent_shape: tuple[int, ...]
    dtype: torch.dtype = torch.float16
    sources: tuple[StyleSource, ...] = STYLE_SOURCES

    @cached_property
    def slots(self) -> frozenset[BlockSlot]:
        """The slots of the layers that are recorded."""
        return frozenset(layer.slot for layer in self.layers)

    def check_features(self, features: Tensor, slot: BlockSlot) -> None:
        """Raises unless a self-attention output, (items, tokens, channels), has the planned shape.

        Raises:
            ShapeMismatchError: the tokens or channels differ, or the items are not a whole number of batches.
        """
        layer = next(layer for layer in self.layers if layer.slot == slot)
        batch = self.latent_shape[0]
        if features.shape[1:] != (layer.num_tokens, layer.channels) or features.shape[0] % batch:
            raise ShapeMismatchError(
                f"self-attention layer {' '.join(map(str, slot))} gives {tuple(features.shape)} instead of a multiple "
                f"of {(batch, layer.num_tokens, layer.channels)}: remove areas from the conditioning, and bypass nodes "
                "that resize features (Deep Shrink) or merge tokens"
            )

    @staticmethod
    def of(
        mode: CacheMode,
        layers: tuple[AttentionLayer, ...],
        *,
        settings: FusionSettings,
        num_steps: int,
        latent_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float16,
        sources: tuple[StyleSource, ...] = STYLE_SOURCES,
    ) -> CachePlan:
        """Returns the smallest plan that a restoration with these settings needs.

        Args:
            layers: every self-attention layer of the UNet, in running order.
            sources: the style sources that it can choose from.
        """
        used = tuple(layer for number, layer in enumerate(layers) if settings.covers_layer(number))
        steps = frozenset(step for step in range(1, num_steps + 1) if settings.covers_step(step, num_steps))
        if settings.attention_strength == 0:
            used = ()
        return CachePlan(
            mode=mode,
            layers=used,
            steps=steps,
            num_steps=num_steps,
            latent_shape=latent_shape,
            dtype=dtype,
            sources=sources,
        )

    @property
    def num_bytes(self) -> int:
        """The size of the finished cache."""
        batch = self.latent_shape[0]
        latents = (self.num_steps + 1) * math.prod(self.latent_shape) * torch.float32.itemsize
        if self.mode is CacheMode.FULL:
            per_step = sum(layer.num_tokens * layer.channels for layer in self.layers) * self.dtype.itemsize
        else:  # mean, deviation, and whether they are defined
            moments = (2 * layer.channels * torch.float32.itemsize + torch.bool.itemsize for layer in self.layers)
            per_step = len(self.sources) * sum(moments)
        return latents + batch * len(self.steps) * per_step

    @property
    def num_mib(self) -> int:
        """The smallest sufficient budget in whole MiB."""
        return math.ceil(self.num_bytes / MIB)


def fitting_mode(wanted: CacheMode, plan: CachePlan, budget_mib: int) -> CacheMode:
    """What is kept.

    Args:
        wanted: by the user.
        plan: of one item, in full mode.
    """
    if wanted is not CacheMode.AUTO:
        return wanted
    return CacheMode.FULL if plan.num_mib <= budget_mib else CacheMode.STATISTICS
