"""How a face is turned, from its landmarks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..faces.landmarks import five_points


class Attitude(NamedTuple):
    """How a face is turned.

    Attributes:
        roll: degrees by which it leans, positive if the eye on the viewer's right is lower.
        turn: where the tip of the nose is between the eyes: 0 in their middle, -1 under that on the viewer's left, 1
            under that on the right.
    """

    roll: float
    turn: float


def attitude(landmarks: np.ndarray) -> Attitude:
    """Measures how a face is turned.

    Args:
        landmarks: (num_points, 2) pixels of a known layout.
    Returns:
        Both are NaN if the eyes or the nose were not seen, or if both eyes are at one point.
    """
    left, right, nose = five_points(landmarks)[:3].astype(np.float64)
    between = right - left
    half = float(between @ between) / 2
    if not half > 0:
        return Attitude(math.nan, math.nan)
    turn = float((nose - (left + right) / 2) @ between) / half
    return Attitude(math.degrees(math.atan2(between[1], between[0])), turn)
