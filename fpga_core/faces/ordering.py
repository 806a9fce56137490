"""Selects the faces of a picture, and orders them for numbering."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from .face import Face


class FaceOrder(str, Enum):
    """Order in which the faces of one picture are listed and numbered."""

    LARGEST_FIRST = "largest_first"
    LEFT_TO_RIGHT = "left_to_right"
    DETECTOR = "detector"


def select_faces(faces: Sequence[Face], order: FaceOrder, min_size_px: float = 0) -> tuple[Face, ...]:
    """Returns the faces of one picture with a longer side of at least `min_size_px`, in the chosen order.

    Args:
        faces: faces of one picture, in the detector's order, which ties keep.
        order: largest box area first, from left to right by the box's centre, or as the detector returned them.
        min_size_px: pixels of the picture; 0 keeps every face.
    Returns:
        The faces that remain.
    """
    kept = [face for face in faces if face.size_px >= min_size_px]
    if order is FaceOrder.LARGEST_FIRST:
        kept.sort(key=lambda face: -face.box.area)
    elif order is FaceOrder.LEFT_TO_RIGHT:
        kept.sort(key=lambda face: face.box.center[0])
    return tuple(kept)
