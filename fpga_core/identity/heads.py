"""Finds the face on a body skeleton."""

from __future__ import annotations

import numpy as np

from ..faces.keypoint_formats import MIN_CONFIDENCE
from ..geometry import Box

NOSE, NECK = 0, 1
EYES, EARS = (14, 15), (16, 17)

# Keypoint distances in units of the distance between the eyes as seen from the front (adult means). Each is the longest
# distance over all turns of the head to the side, so the largest of several estimates is the least foreshortened one.
EYE_TO_EYE = 1.0
EAR_TO_EAR = 2.2
EYE_TO_EAR = 1.5
NOSE_TO_EAR = 2.0
NOSE_TO_NECK = 3.0  # the neck keypoint is between the shoulders

# A detector's face box in the same units, measured with a public detector (MTCNN) on frontal faces: 2.0-2.2 by 2.5-2.8.
FACE_WIDTH, FACE_HEIGHT = 2.1, 2.7


def head_box(keypoints: np.ndarray) -> Box | None:
    """Returns the box that a face detector would draw, from a body's nose, eyes, ears and neck.

    The size follows from the least foreshortened distance between two keypoints of the head, and from nose to neck
    if there is none. The centre is the mean of eyes, nose and ears, which lies between eye line and nose tip on a
    frontal face, and moves towards the ear on a profile.

    Args:
        keypoints: (18, 3) OpenPose (COCO-18): x and y in pixels, then confidence (0 = absent).
    Returns:
        The box in pixels, upright; None if too few are seen to tell where the head is or how large.
    """
    parts = (NOSE, NECK, *EYES, *EARS)
    seen = {i: keypoints[i, :2].astype(np.float64) for i in parts if keypoints[i, 2] >= MIN_CONFIDENCE}
    unit = _eye_distance(seen)
    groups = [[seen[i] for i in group if i in seen] for group in (EYES, (NOSE,), EARS)]
    centers = [np.mean(group, axis=0) for group in groups if group]
    if not unit or not centers:
        return None
    x, y = np.mean(centers, axis=0).tolist()
    half_width, half_height = FACE_WIDTH * unit / 2, FACE_HEIGHT * unit / 2
    return Box(x - half_width, y - half_height, x + half_width, y + half_height)


def _eye_distance(seen: dict[int, np.ndarray]) -> float:
    """Distance between the eyes in pixels, had the head been seen from the front; 0 if nothing tells it."""
    pairs = [
        (*EYES, EYE_TO_EYE),
        (*EARS, EAR_TO_EAR),
        *((eye, ear, EYE_TO_EAR) for eye, ear in zip(EYES, EARS, strict=True)),
        *((NOSE, ear, NOSE_TO_EAR) for ear in EARS),
    ]
    head = [_distance(seen, a, b) / longest for a, b, longest in pairs]
    return max(head) or _distance(seen, NOSE, NECK) / NOSE_TO_NECK


def _distance(seen: dict[int, np.ndarray], a: int, b: int) -> float:
    return float(np.linalg.norm(seen[a] - seen[b])) if a in seen and b in seen else 0.0
