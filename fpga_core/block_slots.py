"""Where a UNet's transformer blocks are, in ComfyUI's terms."""

from __future__ import annotations

from typing import NamedTuple


class BlockSlot(NamedTuple):
    """A transformer block of a UNet, and with it its two attention layers; the middle block is ("middle", 0).

    Attributes:
        block: "input", "middle" or "output".
        number: number of the block among its kind.
        index: number of the transformer block in it.
    """

    block: str
    number: int
    index: int

    @property
    def module_path(self) -> str:
        """Path of the transformer block in ComfyUI's UNet; it holds `.attn1` (self) and `.attn2` (cross attention)."""
        if self.block == "middle":
            return f"middle_block.1.transformer_blocks.{self.index}"
        return f"{self.block}_blocks.{self.number}.1.transformer_blocks.{self.index}"
