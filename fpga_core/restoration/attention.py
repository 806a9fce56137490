"""What happens at one self-attention layer: the inversion records its output, the restoration fuses it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block_slots import BlockSlot
from ..shapes import Extent, cell_means, token_grid
from .feature_cache import FeatureCache
from .fusion import FusionSettings, GridMask, StyleSource, as_cells, fuse
from .inversion import StepCounter


def mask_on_grid(mask: Tensor, num_tokens: int) -> Tensor:
    """The mask averaged over the cells of an attention layer.

    Args:
        mask: M in [0, 1], (batch, 1, height, width), latent pixels.
        num_tokens: number of tokens of the layer.
    Returns:
        (batch, num_tokens, 1), the dtype and device of `mask`.
    Raises:
        ShapeMismatchError: no level of the UNet has that many tokens.
    """
    grid = token_grid(Extent(width=mask.shape[-1], height=mask.shape[-2]), num_tokens)
    return as_cells(cell_means(mask, grid))


class MaskOnGrids:
    """A mask as each attention layer sees it, drawn once for each grid and device.

    Args:
        mask: M, (batch, 1, height, width), latent pixels.
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask.float().cpu()
        self._drawn: dict[tuple[int, torch.device], GridMask] = {}

    def on(self, num_tokens: int, device: torch.device) -> GridMask:
        """The mask on the grid of a layer with that many tokens; as many as latent pixels: on the latent."""
        if (num_tokens, device) not in self._drawn:
            self._drawn[num_tokens, device] = GridMask.of(mask_on_grid(self._mask, num_tokens)).to(device)
        return self._drawn[num_tokens, device]


@dataclass(frozen=True, eq=False)
class AttentionRecorder:
    """Keeps self-attention outputs of the inversion, SA^C of Alg. 1.

    Attributes:
        cache: where they go.
        counter: the sampler's step; nothing is recorded while it is None.
        masks: M; None is enough in full mode.
    """

    cache: FeatureCache
    counter: StepCounter
    masks: MaskOnGrids | None

    def record(self, features: Tensor, slot: BlockSlot) -> None:
        """Keeps the output of one layer, (batch, tokens, channels), if the plan has it."""
        step = self.counter.current
        if step is None or not self.cache.wants(step, slot):
            return
        self.cache.plan.check_features(features, slot)
        mask = None if self.masks is None else self.masks.on(features.shape[1], features.device)
        self.cache.record(step, slot, features, mask)


@dataclass(frozen=True, eq=False)
class AttentionFusion:
    """Fuses recorded self-attention outputs into the restoration's, SA^R of Alg. 1.

    Attributes:
        cache: a finished inversion.
        counter: the sampler's step; nothing is fused while it is None.
        masks: M.
        settings: style source and strengths.
        layers: slots that are fused, among those that the cache recorded.
    """

    cache: FeatureCache
    counter: StepCounter
    masks: MaskOnGrids
    settings: FusionSettings
    layers: frozenset[BlockSlot]

    def fuse(self, features: Tensor, slot: BlockSlot) -> Tensor:
        """The output of one layer after fusion.

        Args:
            features: (chunks * batch, tokens, channels), the chunks being cond and uncond.
        Returns:
            The same shape, dtype and device.
        Source: FPGA Alg. 1, line 6.
        """
        step = self.counter.current
        if step is None or slot not in self.layers:
            return features
        self.cache.plan.check_features(features, slot)
        mask = self.masks.on(features.shape[1], features.device)
        chunks = features.unflatten(0, (-1, len(mask.weights)))  # (chunks, batch, tokens, channels)
        cached, style, source = self.cache.background(step, slot), None, self.settings.style_source
        if cached is not None:
            cached = cached.to(features.device)
        if source is not StyleSource.OFF:
            kept = cached is None
            style = self.cache.moments(step, slot, source, features.device) if kept else mask.moments(cached, source)
        background = chunks if cached is None else cached
        strengths = self.settings.style_strength, self.settings.attention_strength
        return fuse(chunks, background, mask, style, *strengths).flatten(0, 1)
