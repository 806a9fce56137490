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


def check_strengths(strengths: Sequence[float], num_identities: int) -> tuple[float, ...]:
    """The strengths, one per identity; all 1 if none are given.

    Raises:
        InvalidInputError: their number or one of the values does not fit.
    """
    if not strengths:
        return (1.0,) * num_identities
    if len(strengths) != num_identities:
        raise InvalidInputError(
            f"{len(strengths)} strengths are given for {num_identities} identities; give one for each, or none to set "
            "all to 1"
        )
    for number, strength in enumerate(strengths, 1):
        if not (math.isfinite(strength) and 0 <= strength <= MAX_STRENGTH):
            raise InvalidInputError(f"strength {number} is {strength}; it must be from 0 to {MAX_STRENGTH:g}")
    return tuple(strengths)
