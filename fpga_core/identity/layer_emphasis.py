"""Which cross-attention layers an identity acts on most."""

from __future__ import annotations

from enum import Enum

WEAKEST = 0.05
"""The scale of the layer with the least emphasis. No layer is turned off."""


class LayerEmphasis(str, Enum):
    """How an identity's strength varies over the layers, in running order. The strongest layer keeps 1."""

    UNIFORM = "uniform"
    EARLY = "early"
    LATE = "late"
    MIDDLE = "middle"
    ENDS = "ends"

    def scale(self, layer: int, num_layers: int) -> float:
        """Returns the factor on the strength in layer `layer` (from 0) of `num_layers`, in [WEAKEST, 1]."""
        position = layer / (num_layers - 1) if num_layers > 1 else 0.5
        from_middle = abs(2 * position - 1)
        emphasis = {
            LayerEmphasis.UNIFORM: 1.0,
            LayerEmphasis.EARLY: 1 - position,
            LayerEmphasis.LATE: position,
            LayerEmphasis.MIDDLE: 1 - from_middle,
            LayerEmphasis.ENDS: from_middle,
        }[self]
        return WEAKEST + (1 - WEAKEST) * emphasis
