"""The mask of a face, M_B of Alg. 1: an outline or a parsed mask, dilated and smoothed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..faces.face import Face
from ..faces.landmarks import face_outline
from ..packages import OPENCV, importing

MAX_AREA = 1.6
"""Area of a finished mask, soft edge included, as a multiple of that of the hull of the face's landmarks."""

_ELLIPSE_CORNERS = 64
_SUBPIXEL_BITS = 4


def face_hull(face: Face) -> np.ndarray:
    """Outline of a face in pixels of its picture: the convex hull of its landmarks, forehead included.

    Args:
        face: with 68 or more landmarks; with fewer or none the ellipse in the box stands in for the hull.
    Returns:
        (num_corners, 2), x then y.
    """
    outline = None if face.landmarks is None else face_outline(face.landmarks)
    if outline is not None and polygon_area(outline) > 0:
        return outline
    turns = np.linspace(0, 2 * math.pi, _ELLIPSE_CORNERS, endpoint=False)
    directions = np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    return face.box.center + directions * (face.box.width / 2, face.box.height / 2)


def hull_area(face: Face) -> float:
    """Area that a face's mask is measured against: the convex hull of its landmarks alone, without a forehead.

    Args:
        face: with 68 or more landmarks; with fewer or none the ellipse in the box stands in.
    Returns:
        Square pixels of the picture.
    """
    landmarks = face.landmarks
    if landmarks is None or face_outline(landmarks) is None:
        return polygon_area(face_hull(face))
    with importing(OPENCV):
        import cv2
    seen = landmarks[np.isfinite(landmarks).all(axis=1)].astype(np.float32)
    return polygon_area(cv2.convexHull(seen)) or polygon_area(face_hull(face))


def polygon_area(corners: np.ndarray) -> float:
    """Area of a polygon, (num_corners, 2), in square pixels."""
    with importing(OPENCV):
        import cv2
    return float(cv2.contourArea(corners.astype(np.float32)))


def draw_hull(corners: np.ndarray, size_px: int) -> Tensor:
    """A convex polygon filled with ones.

    Args:
        corners: (num_corners, 2) pixels; may reach beyond the square.
        size_px: side of the square.
    Returns:
        (size_px, size_px) float32, 0 or 1.
    """
    with importing(OPENCV):
        import cv2
    canvas = np.zeros((size_px, size_px), np.uint8)
    centered = (corners - 0.5) * (1 << _SUBPIXEL_BITS)  # OpenCV's pixel (0, 0) has its centre there, ours at (0.5, 0.5)
    cv2.fillConvexPoly(canvas, centered.round().astype(np.int32), 1, cv2.LINE_8, _SUBPIXEL_BITS)
    return torch.from_numpy(canvas).float()


def soften_mask(mask: Tensor, dilate_px: float, feather_px: float) -> Tensor:
    """Dilates a mask and smooths its edge as a Gaussian kernel smooths a straight one.

    The edge falls with the distance to the mask, so that it ends exactly where it should; a blur reaches further.

    Args:
        mask: (height, width); what is at least half of full counts as inside.
        dilate_px: distance by which the solid part grows.
        feather_px: width of the soft edge beyond it: four deviations of the kernel.
    Returns:
        (height, width) float32: 1 up to `dilate_px` from the mask, exactly 0 beyond `dilate_px + feather_px`.
    """
    inside = (mask >= 0.5).cpu().numpy().astype(np.uint8)
    if not inside.any():
        return torch.zeros(mask.shape)
    with importing(OPENCV):
        import cv2
    to_mask = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    beyond = torch.from_numpy(to_mask) - 0.5 - dilate_px  # the outline runs between two pixels' centres
    deviations = 4 * beyond / max(feather_px, torch.finfo(torch.float32).tiny) - 2
    soft = 0.5 - 0.5 * torch.erf(deviations / math.sqrt(2)) / math.erf(2 / math.sqrt(2))
    return soft.where(beyond < feather_px, 0.0).where(beyond > 0, 1.0)


def growth_within(mask: Tensor, max_area: float) -> float:
    """How far a mask may grow on all sides before its area exceeds a limit.

    Args:
        mask: (height, width), at least half of full counts as inside.
        max_area: in pixels of the mask.
    Returns:
        The distance e in pixels with `A + P e + pi e^2 = max_area` (Steiner's formula, an upper bound of the grown area
        where the mask is not convex); 0 where the mask is larger already.
    """
    inside = (mask >= 0.5).cpu().numpy().astype(np.uint8)
    area = int(inside.sum())
    if area == 0 or area >= max_area:
        return 0.0
    with importing(OPENCV):
        import cv2
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    perimeter = sum(cv2.arcLength(contour, closed=True) for contour in contours)
    perimeter += math.pi  # the contours run through the outer pixels' centres, half a pixel inside their edges
    return (math.sqrt(perimeter**2 + 4 * math.pi * (max_area - area)) - perimeter) / (2 * math.pi)


def bounded_mask(mask: Tensor, dilate_px: float, feather_px: float, max_area: float, slack_px: float) -> Tensor:
    """`soften_mask` with both widths reduced, in proportion, to what the limit of area allows.

    Args:
        mask, dilate_px, feather_px: as there.
        max_area: in pixels of the mask.
        slack_px: growth to leave unused, for the resampling that follows.
    """
    wanted = dilate_px + feather_px
    allowed = max(growth_within(mask, max_area) - slack_px, 0.0)
    shrink = min(1.0, allowed / wanted) if wanted > 0 else 0.0
    return soften_mask(mask, dilate_px * shrink, feather_px * shrink)
