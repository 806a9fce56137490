"""The optimizers that a training can use: AdamW, whose states fill more memory than the network itself, in three forms.

All compute the same update. With a weight decay of 0, AdamW is the paper's Adam.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

from ...packages import importing


class OptimizerKind(str, Enum):
    """A form of AdamW."""

    ADAMW = "adamw"
    """torch's own; the paper's."""
    FUSED = "adamw-fused"
    """torch's, in one kernel, which needs no memory for results in between."""
    EIGHT_BIT = "adamw-8bit"
    """The moments in 8 bits, by bitsandbytes: a quarter of the memory."""


def make_optimizer(
    kind: OptimizerKind,
    groups: list[dict[str, Any]],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Creates an optimizer.

    Args:
        kind: its form.
        groups: "params", the parameters of a group, and other values that are kept with them.
        learning_rate, betas, weight_decay: of AdamW.
    Raises:
        MissingPackageError: bitsandbytes is needed and cannot be imported.
    """
    if kind is OptimizerKind.EIGHT_BIT:
        with importing("bitsandbytes"):
            from bitsandbytes.optim.adamw import AdamW8bit
        return AdamW8bit(groups, lr=learning_rate, betas=betas, weight_decay=weight_decay)
    is_fused = True if kind is OptimizerKind.FUSED else None
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=is_fused)
