"""The cache of an inversion: what it keeps of each step, planned from shapes before it runs, within a budget."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from ..block_slots import BlockSlot
from ..errors import InvalidInputError, ShapeMismatchError
from .adain import Moments
from .fusion import FusionSettings, GridMask, StyleSource

Entry = TypeVar("Entry")

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


class FeatureCache(AbstractContextManager["FeatureCache"]):
    """The latents and self-attention outputs of one inversion, by the sampler's step and the layer's slot.

    If the run that fills it also consumes it, use it as a context manager, so that it is freed after success, errors
    and interrupts. Recording is safe from several threads (ComfyUI runs cond and uncond on different GPUs).

    What does not fit on a GPU goes to pinned CPU memory by copies that the GPU makes while it computes. Later work on
    the same stream sees them finished; the CPU can read them after the inversion has reported its step.

    Args:
        plan: what will be recorded.
        budget_mib: the most memory that it can use, wherever it is stored.
        device_bytes: the part of it that can stay on the device of the computation; the rest goes to CPU memory.
    Raises:
        InvalidInputError: the plan does not fit the budget.
    """

    def __init__(self, plan: CachePlan, *, budget_mib: int, device_bytes: int = 0) -> None:
        if plan.num_mib > budget_mib:
            raise InvalidInputError(
                f"the inversion cache is limited to {budget_mib} MiB, but {plan.latent_shape[0]} picture(s) of "
                f"{plan.num_steps} steps need {plan.num_mib} MiB in {plan.mode.value} mode: set cache_budget_mib to "
                f"{plan.num_mib} or more, use fewer steps or layers, or choose statistics mode"
            )
        self.plan = plan
        self._device_bytes = device_bytes
        self._items: Tensor | None = None
        self._latents: dict[int, Tensor] = {}
        self._maps: dict[tuple[int, BlockSlot], Tensor] = {}
        self._moments: dict[tuple[int, BlockSlot], dict[StyleSource, Moments]] = {}
        self._lock = threading.Lock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Frees everything stored."""
        self._latents.clear()
        self._maps.clear()
        self._moments.clear()

    @property
    def num_bytes(self) -> int:
        """The number of bytes stored now."""
        moments = (entry for both in self._moments.values() for entry in both.values())
        tensors = (*self._latents.values(), *self._maps.values())
        return sum(tensor.nbytes for tensor in tensors) + sum(entry.num_bytes for entry in moments)

    def of_items(self, items: Sequence[int]) -> FeatureCache:
        """Returns a view of some items of the batch, which shares the storage and is freed with it."""
        view = copy.copy(self)
        view._items = torch.tensor(items)
        view.plan = replace(self.plan, latent_shape=(len(items), *self.plan.latent_shape[1:]))
        return view

    def record_latent(self, step: int, latent: Tensor) -> None:
        """Records Z_t, (batch, channels, height, width); step 0 is the clean latent."""
        self._latents[step] = self._stored(latent, torch.float32)

    def latent(self, step: int) -> Tensor:
        """Returns Z_t as recorded, in float32.

        Raises:
            InvalidInputError: the cache was freed, or the inversion did not reach this step.
        """
        if step not in self._latents:
            raise InvalidInputError(
                f"the inversion has no latent of step {step} of {self.plan.num_steps}; run the inversion again"
            )
        return self._chosen(self._latents[step])

    def record(self, step: int, slot: BlockSlot, features: Tensor, *, mask: GridMask | None) -> None:
        """Records a self-attention output, or its statistics.

        If there are several calls for one step and slot, the first counts. Guidance that runs a perturbed model within
        the same step therefore does not overwrite the model's own features.

        Args:
            features: (batch, tokens, channels).
            mask: the mask on the layer's grid; required in statistics mode.
        """
        key = (step, slot)
        if key in self._maps or key in self._moments:
            return
        if self.plan.mode is CacheMode.FULL:
            self._maps.setdefault(key, self._stored(features, self.plan.dtype))
            return
        if mask is None:
            raise InvalidInputError(
                "statistics mode measures inside and outside a mask; connect a mask, or choose full mode"
            )
        measured = {source: self._stored_moments(mask.moments(features, source)) for source in self.plan.sources}
        self._moments.setdefault(key, measured)

    def background(self, step: int, slot: BlockSlot, *, device: torch.device) -> Tensor | None:
        """Returns the recorded map on a device, (batch, tokens, channels); None in statistics mode."""
        if self.plan.mode is not CacheMode.FULL:
            return None
        return self._chosen(self._entry(self._maps, step, slot).to(device, non_blocking=True))

    def moments(self, step: int, slot: BlockSlot, source: StyleSource, *, device: torch.device) -> Moments:
        """Returns the recorded statistics of a style source over the mask of the inversion, in statistics mode."""
        measured = self._entry(self._moments, step, slot)
        if source not in measured:
            raise InvalidInputError(f"the inversion has no statistics of the style source {source.value}; run it again")
        moments = measured[source]
        stored = (moments.mean, moments.deviation, moments.is_defined)
        parts = (self._chosen(part.to(device, non_blocking=True)) for part in stored)
        return Moments(*parts)

    def _chosen(self, stored: Tensor) -> Tensor:
        """Returns the items of the batch that this view covers."""
        return stored if self._items is None else stored[self._items.to(stored.device)]

    def _stored(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns a copy on its own device while there is room, else in CPU memory, which a GPU fills by itself."""
        num_bytes = tensor.numel() * dtype.itemsize
        with self._lock:
            fits = tensor.device.type == "cpu" or num_bytes <= self._device_bytes
            if fits:
                self._device_bytes -= num_bytes
        if dtype is torch.float16 and tensor.dtype is not torch.float16:  # saturate instead of overflowing to infinity
            limit = torch.finfo(torch.float16).max
            tensor = tensor.clamp(-limit, limit)
        if fits or tensor.device.type != "cuda":
            return tensor.detach().to(tensor.device if fits else "cpu", dtype, copy=True)
        pinned = torch.empty(tensor.shape, dtype=dtype, pin_memory=True)
        return pinned.copy_(tensor.detach().to(dtype), non_blocking=True)

    def _stored_moments(self, moments: Moments) -> Moments:
        return Moments(
            self._stored(moments.mean, torch.float32),
            self._stored(moments.deviation, torch.float32),
            self._stored(moments.is_defined, torch.bool),
        )

    def _entry(self, entries: dict[tuple[int, BlockSlot], Entry], step: int, slot: BlockSlot) -> Entry:
        if (step, slot) not in entries:
            raise InvalidInputError(
                f"the inversion recorded nothing for layer {' '.join(map(str, slot))} at step {step} of "
                f"{self.plan.num_steps}; its ranges of steps and layers must cover those of the restoration, and both "
                "must use the same model"
            )
        return entries[step, slot]
