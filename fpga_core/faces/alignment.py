"""Aligned face crops, with eyes, nose and mouth where recognisers and adapters expect them."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidInputError
from ..packages import OPENCV, importing
from .face import Face
from .landmarks import five_points

ARCFACE_SIZE_PX = 112
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""The places of left eye, right eye, nose tip and mouth corners that ArcFace expects in a picture of 112x112.
Source: insightface, utils/face_align.py."""


def alignment_points(face: Face) -> np.ndarray:
    """The five points that a face is aligned by: the detector's own, or else points of the landmarks.

    Returns:
        (5, 2) pixels.
    Raises:
        InvalidInputError: the detector gave only a box, or did not see one of the points.
    """
    points = face.keypoints
    if points is None and face.landmarks is not None:
        points = five_points(face.landmarks)
    if points is None or not np.isfinite(points).all():
        raise InvalidInputError(
            "a face cannot be aligned, because its detector found no eyes, nose or mouth corners; use a face analysis "
            "pack whose detector finds five points, such as buffalo_l or antelopev2"
        )
    return points


def similarity_transform(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the rotation, uniform scale and shift that bring points closest to a target by least squares.

    Args:
        points: (num_points, 2), not all the same.
        target: (num_points, 2).
    Returns:
        (2, 3) matrix: `target ~ matrix[:, :2] @ point + matrix[:, 2]`.
    Raises:
        InvalidInputError: all points coincide.
    Source: Umeyama 1991, in two dimensions, where the rotation has a closed form; never a reflection.
    """
    centre, target_centre = points.mean(axis=0), target.mean(axis=0)
    x, y = (points - centre).T
    u, v = (target - target_centre).T
    spread = (x**2 + y**2).sum()
    if not spread > 0:
        raise InvalidInputError(
            "a face cannot be aligned, because all its landmarks are at one point; use another photo"
        )
    cos, sin = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread  # scaled
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, target_centre - turn @ centre])


def align_face(picture: np.ndarray, face: Face, size_px: int = ARCFACE_SIZE_PX) -> np.ndarray:
    """Crops a face upright, with its features at the places of ArcFace's template.

    Args:
        picture: (height, width, channels) uint8.
        face: a face of this picture.
        size_px: side of the result; the template scales with it.
    Returns:
        (size_px, size_px, channels) uint8, black outside the picture.
    Raises:
        InvalidInputError: the face has no usable landmarks.
    Source: insightface's `norm_crop`; IP-Adapter FaceID-Plus uses it at 224 for CLIP.
    """
    with importing(OPENCV):
        import cv2
    transform = similarity_transform(alignment_points(face), ARCFACE_TEMPLATE * (size_px / ARCFACE_SIZE_PX))
    return cv2.warpAffine(picture, transform, (size_px, size_px))
