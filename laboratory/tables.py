"""Halves of cases, and when a setting replaces another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..fpga_core.evaluation.table import FACESIM, Rows, paired

POSE_ERROR = "pose error"
CLEAR = 2.0
"""A difference of at least this many standard errors counts when settings are chosen."""
Item = TypeVar("Item")


def choosing(cases: Sequence[Item]) -> Sequence[Item]:
    """Returns every second case: the half by which settings are chosen."""
    return cases[::2]


def confirming(cases: Sequence[Item]) -> Sequence[Item]:
    """Returns the other half, by which the choice is reported."""
    return cases[1::2]


def is_chosen(rows: Rows, name: str, reference: str, *, kept: Sequence[str]) -> bool:
    """Whether a setting replaces another: FaceSim is clearly higher, and no error is clearly higher.

    Args:
        rows: both on the same pictures.
        name, reference: the rows of the two settings.
        kept: measures of errors, which must not rise.
    """
    if not paired(rows, name, reference, measure=FACESIM).is_above(CLEAR):
        return False
    return not any(paired(rows, name, reference, measure=error).is_above(CLEAR) for error in kept)
