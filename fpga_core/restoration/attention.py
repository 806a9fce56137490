"""The work at one self-attention layer: the inversion records its output, and the restoration fuses it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..block_slots import BlockSlot
from ..shapes import Extent, cell_means, token_grid
from .feature_cache import FeatureCache
from .fusion import FusionSettings, GridMask, StyleSource, as_cells, fuse


@dataclass
class StepCounter:
    """Tells the attention patches the sampler's current step, because they see sigmas only as floats.

    Attributes:
        current: t of Alg. 1 (1 is the least noisy step) during a model call that counts for that step, otherwise None.
    """

    current: int | None = None

    @contextmanager
    def at(self, step: int | None) -> Generator[None, None, None]:
        self.current = step
        try:
            yield
        finally:
            self.current = None


class MaskOnGrids:
    """A mask on the grid of each attention layer, drawn once for each grid and device.

    Args:
        mask: M, (batch, 1, height, width), latent pixels.
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask.float().cpu()
        self._drawn: dict[tuple[int, torch.device], GridMask] = {}

    def on(self, num_tokens: int, device: torch.device) -> GridMask:
        """Returns the mask on the grid of a layer with this many tokens.

        Raises:
            ShapeMismatchError: no level of the UNet has that many tokens.
        """
        if (num_tokens, device) not in self._drawn:
            grid = token_grid(Extent(width=self._mask.shape[-1], height=self._mask.shape[-2]), num_tokens)
            self._drawn[num_tokens, device] = GridMask.of(as_cells(cell_means(self._mask, grid)), device)
        return self._drawn[num_tokens, device]


@dataclass(frozen=True, eq=False)
class AttentionRecorder:
    """Records the self-attention outputs of the inversion, SA^C of Alg. 1.

    Attributes:
        cache: receives them.
        counter: the sampler's step; nothing is recorded while it is None.
        masks: M; it can be None in full mode.
    """

    cache: FeatureCache
    counter: StepCounter
    masks: MaskOnGrids | None

    def record(self, features: Tensor, slot: BlockSlot) -> None:
        """Records the output of one layer, (batch, tokens, channels), if the plan contains it."""
        step, plan = self.counter.current, self.cache.plan
        if step is None or step not in plan.steps or slot not in plan.slots:
            return
        plan.check_features(features, slot)
        mask = None if self.masks is None else self.masks.on(features.shape[1], features.device)
        self.cache.record(step, slot, features, mask=mask)


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionFusion:
    """Fuses recorded self-attention outputs into those of the restoration, SA^R of Alg. 1.

    Attributes:
        cache: a finished inversion.
        counter: the sampler's step; nothing is fused while it is None.
        masks: M.
        settings: style source and strengths.
        layers: the slots to fuse, among those that the cache recorded.
    """

    cache: FeatureCache
    counter: StepCounter
    masks: MaskOnGrids
    settings: FusionSettings
    layers: frozenset[BlockSlot]

    def fuse(self, features: Tensor, slot: BlockSlot) -> Tensor:
        """Returns the output of one layer after fusion.

        Args:
            features: (chunks * batch, tokens, channels); the chunks are cond and uncond.
        Returns:
            The same shape, dtype and device.
        Source: FPGA Alg. 1, line 6.
        """
        step = self.counter.current
        if step is None or slot not in self.layers:
            return features
        self.cache.plan.check_features(features, slot)
        mask = self.masks.on(features.shape[1], features.device)
        chunks = features.reshape(-1, len(mask.weights), *features.shape[1:])  # (chunks, batch, tokens, channels)
        cached = self.cache.background(step, slot, device=features.device)
        background, source = chunks if cached is None else cached, self.settings.style_source
        if source is StyleSource.OFF:
            style = None
        elif cached is None:
            style = self.cache.moments(step, slot, source, device=features.device)
        else:
            style = mask.moments(background, source)
        fused = fuse(
            chunks,
            background,
            mask=mask,
            style=style,
            style_strength=self.settings.style_strength,
            strength=self.settings.attention_strength,
        )
        return fused.flatten(0, 1)
