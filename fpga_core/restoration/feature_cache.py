"""The cache of an inversion: latents and self-attention outputs of each step, within a budget."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from ..block_slots import BlockSlot
from ..errors import InvalidInputError
from .adain import Moments
from .cache_plan import CacheMode, CachePlan
from .fusion import GridMask, StyleSource

Entry = TypeVar("Entry")


class FeatureCache:
    """The latents and self-attention outputs of one inversion, by the sampler's step and the layer's slot.

    If the run that fills it also consumes it, use it as a context manager, so that it is freed after success, errors
    and interrupts. Recording is safe from several threads (ComfyUI runs cond and uncond on different GPUs).

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

    def __enter__(self) -> FeatureCache:
        return self

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

    def background(self, step: int, slot: BlockSlot) -> Tensor | None:
        """Returns the recorded map, (batch, tokens, channels); None in statistics mode."""
        return self._chosen(self._entry(self._maps, step, slot)) if self.plan.mode is CacheMode.FULL else None

    def moments(self, step: int, slot: BlockSlot, source: StyleSource, *, device: torch.device) -> Moments:
        """Returns the recorded statistics of a style source over the mask of the inversion, in statistics mode."""
        measured = self._entry(self._moments, step, slot)
        if source not in measured:
            raise InvalidInputError(f"the inversion has no statistics of the style source {source.value}; run it again")
        moments = measured[source]
        parts = (self._chosen(part).to(device) for part in (moments.mean, moments.deviation, moments.is_defined))
        return Moments(*parts)

    def _chosen(self, stored: Tensor) -> Tensor:
        """Returns the items of the batch that this view covers."""
        return stored if self._items is None else stored[self._items.to(stored.device)]

    def _stored(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns a copy on its own device while there is room, and otherwise on the CPU."""
        num_bytes = tensor.numel() * dtype.itemsize
        with self._lock:
            fits = tensor.device.type == "cpu" or num_bytes <= self._device_bytes
            if fits:
                self._device_bytes -= num_bytes
        if dtype is torch.float16 and tensor.dtype is not torch.float16:  # saturate instead of overflowing to infinity
            limit = torch.finfo(torch.float16).max
            tensor = tensor.clamp(-limit, limit)
        return tensor.detach().to(tensor.device if fits else "cpu", dtype, copy=True)

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
