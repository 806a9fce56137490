"""Which cross-attention layers an identity acts on most."""

from __future__ import annotations

from enum import Enum

WEAKEST = 0.05
"""Scale of the layer that an emphasis turns down furthest: no layer is switched off."""


class LayerEmphasis(str, Enum):
    """How an identity's strength varies over the layers, in the order in which they run; the strongest keeps 1."""

    UNIFORM = "uniform"
    EARLY = "early"
    LATE = "late"
    MIDDLE = "middle"
    ENDS = "ends"

    def scale(self, layer: int, num_layers: int) -> float:
        """Factor on the strength in layer number `layer` (from 0) of `num_layers`, in [WEAKEST, 1]."""
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
