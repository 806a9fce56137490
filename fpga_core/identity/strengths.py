"""How strongly each person of a cast acts, as the user writes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import InvalidInputError

MAX_STRENGTH = 5.0


def parse_strengths(text: str) -> tuple[float, ...]:
    """Reads strengths from comma-separated numbers; empty text gives none.

    Raises:
        InvalidInputError: a part is not a number.
    """
    if not text.strip():
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInputError(
            f"strengths are {text!r}; write one number per identity, separated by commas, such as 1, 0.8, 1.2"
        ) from error


def check_strengths(strengths: Sequence[float], numbers: Sequence[int]) -> tuple[float, ...]:
    """Returns the strength of each identity; all 1 if none are given.

    Args:
        strengths: one per number. Strengths of numbers above the last identity are not used: their people are muted.
        numbers: the number of each identity, from 1, ascending.

    Raises:
        InvalidInputError: their number or one of the values does not fit.
    """
    if not strengths:
        return (1.0,) * len(numbers)
    if len(strengths) < numbers[-1]:
        raise InvalidInputError(
            f"{len(strengths)} strengths are given, but the last identity is number {numbers[-1]}; give one for each, "
            "or none to set all to 1"
        )
    for number, strength in enumerate(strengths, 1):
        if not (math.isfinite(strength) and 0 <= strength <= MAX_STRENGTH):
            raise InvalidInputError(f"strength {number} is {strength}; it must be from 0 to {MAX_STRENGTH:g}")
    return tuple(strengths[number - 1] for number in numbers)
