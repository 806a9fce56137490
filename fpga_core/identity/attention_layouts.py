"""The attention layers of each architecture, in the order in which adapter files number them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from ..block_slots import BlockSlot


@dataclass(frozen=True)
class AttentionLayout:
    """The transformer blocks of an architecture.

    Attributes:
        base: name of the architecture.
        token_dim: width of the context that cross attention reads.
        widths: slot -> width of its attention layers, in the order of diffusers' `attn_processors`: down, up, and the
            middle last.
    """

    base: str
    token_dim: int
    widths: Mapping[BlockSlot, int]

    def scaled(self, ratio: Fraction) -> AttentionLayout:
        """Returns the same blocks in a model that is narrower or wider by `ratio`."""
        return replace(self, widths=MappingProxyType({slot: int(width * ratio) for slot, width in self.widths.items()}))


def attention_layout(base: str, unet_config: Mapping[str, Any]) -> AttentionLayout:
    """Finds the transformer blocks of a UNet.

    Args:
        base: name of the architecture.
        unet_config: ComfyUI's description of the UNet: `model_channels`, `channel_mult`, `num_res_blocks`,
            `context_dim`, `transformer_depth`, `transformer_depth_middle`, `transformer_depth_output`.
    Returns:
        The layout.
    Source: the constructors of ComfyUI's `UNetModel` (which takes the output depths from the list's end) and diffusers'
        `UNet2DConditionModel` (which registers its down and up blocks before the middle block).
    """
    widths: dict[BlockSlot, int] = {}
    levels = [unet_config["model_channels"] * multiple for multiple in unet_config["channel_mult"]]
    depths = list(unet_config["transformer_depth"])
    number = 1  # input block 0 is the first convolution
    for width, num_blocks in zip(levels, unet_config["num_res_blocks"], strict=True):
        for _ in range(num_blocks):
            widths.update(_slots("input", number, depth=depths.pop(0), width=width))
            number += 1
        number += 1  # the downsampling block
    depths = list(unet_config["transformer_depth_output"])
    number = 0
    for width, num_blocks in zip(reversed(levels), reversed(unet_config["num_res_blocks"]), strict=True):
        for _ in range(num_blocks + 1):
            widths.update(_slots("output", number, depth=depths.pop(), width=width))
            number += 1
    widths.update(_slots("middle", 0, depth=unet_config["transformer_depth_middle"], width=levels[-1]))
    return AttentionLayout(base, unet_config["context_dim"], MappingProxyType(widths))


def _slots(block: str, number: int, *, depth: int, width: int) -> dict[BlockSlot, int]:
    return {BlockSlot(block, number, index): width for index in range(depth)}


SD15 = attention_layout(
    "sd15",
    {
        "context_dim": 768,
        "model_channels": 320,
        "channel_mult": (1, 2, 4, 4),
        "num_res_blocks": (2, 2, 2, 2),
        "transformer_depth": (1, 1, 1, 1, 1, 1, 0, 0),
        "transformer_depth_middle": 1,
        "transformer_depth_output": (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
    },
)

SDXL = attention_layout(
    "sdxl",
    {
        "context_dim": 2048,
        "model_channels": 320,
        "channel_mult": (1, 2, 4),
        "num_res_blocks": (2, 2, 2),
        "transformer_depth": (0, 0, 2, 2, 10, 10),
        "transformer_depth_middle": 10,
        "transformer_depth_output": (0, 0, 0, 2, 2, 2, 10, 10, 10),
    },
)

KNOWN_LAYOUTS: Sequence[AttentionLayout] = (SD15, SDXL)
