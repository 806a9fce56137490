"""The transformer blocks of a UNet: where they are, in ComfyUI's terms, and what each holds."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import nn


class BlockSlot(NamedTuple):
    """A transformer block of a UNet with its two attention layers. The middle block is ("middle", 0).

    Attributes:
        block: "input", "middle" or "output".
        number: number of the block among its kind.
        index: number of the transformer block in it.
    """

    block: str
    number: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] - of tuples, and not used

    @property
    def module_path(self) -> str:
        """The path of the transformer block in ComfyUI's UNet, with `.attn1` (self) and `.attn2` (cross attention)."""
        if self.block == "middle":
            return f"middle_block.1.transformer_blocks.{self.index}"
        return f"{self.block}_blocks.{self.number}.1.transformer_blocks.{self.index}"


class Attention(Protocol):
    """The parts of an attention layer that the pack needs: its projections of queries, keys, values and output."""

    to_q: nn.Linear
    to_k: nn.Linear
    to_v: nn.Linear
    to_out: nn.Module


class TransformerBlock(Protocol):
    """A transformer block of a UNet: self attention, which some blocks skip, and cross attention to the text."""

    disable_self_attn: bool
    attn1: Attention
    attn2: Attention
