"""Landmark layouts: what each point means, how the layouts convert, and which curves and outline they give.

A layout is named by its number of points: 5 (eyes, nose tip, mouth corners), 68 (iBUG 300-W; also the face of OpenPose
and COCO-WholeBody), 106 (insightface `2d106det`), 468 and 478 (MediaPipe face mesh, without and with irises). "Left"
and "right" are the viewer's. A point with NaN coordinates was not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from ..errors import InvalidInputError
from ..packages import OPENCV, importing


class FacePart(Enum):
    """The part of the face that a curve outlines."""

    JAW = "jaw"
    LEFT_BROW = "left brow"
    RIGHT_BROW = "right brow"
    NOSE = "nose"
    LEFT_EYE = "left eye"
    RIGHT_EYE = "right eye"
    MOUTH = "mouth"
    LEFT_PUPIL = "left pupil"
    RIGHT_PUPIL = "right pupil"


@dataclass(frozen=True, eq=False)
class Curve:
    """One line of a face drawing: (num_points, 2) pixels; a single point is a dot."""

    part: FacePart
    points: np.ndarray
    is_closed: bool = False


CurveIndices = tuple[FacePart, tuple[int, ...], bool]

FIVE_CURVES: tuple[CurveIndices, ...] = (
    (FacePart.LEFT_EYE, (0,), False),
    (FacePart.RIGHT_EYE, (1,), False),
    (FacePart.NOSE, (2,), False),
    (FacePart.MOUTH, (3, 4), False),
)

IBUG68_CURVES: tuple[CurveIndices, ...] = (
    (FacePart.JAW, tuple(range(0, 17)), False),
    (FacePart.LEFT_BROW, tuple(range(17, 22)), False),
    (FacePart.RIGHT_BROW, tuple(range(22, 27)), False),
    (FacePart.NOSE, tuple(range(27, 31)), False),
    (FacePart.NOSE, tuple(range(31, 36)), False),
    (FacePart.LEFT_EYE, tuple(range(36, 42)), True),
    (FacePart.RIGHT_EYE, tuple(range(42, 48)), True),
    (FacePart.MOUTH, tuple(range(48, 60)), True),
    (FacePart.MOUTH, tuple(range(60, 68)), True),
)

# The FACEMESH_* connection sets of MediaPipe, each followed from end to end (for the nose, the ridge and the base).
# MediaPipe names sides from the subject's view: its right eye is the viewer's left.
# fmt: off
MESH_CURVES: tuple[CurveIndices, ...] = (
    (FacePart.JAW, (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148,
                    176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109), True),
    (FacePart.LEFT_BROW, (46, 53, 52, 65, 55), False),
    (FacePart.LEFT_BROW, (70, 63, 105, 66, 107), False),
    (FacePart.RIGHT_BROW, (276, 283, 282, 295, 285), False),
    (FacePart.RIGHT_BROW, (300, 293, 334, 296, 336), False),
    (FacePart.NOSE, (168, 6, 197, 195, 5, 4), False),
    (FacePart.NOSE, (98, 97, 2, 326, 327), False),
    (FacePart.LEFT_EYE, (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246), True),
    (FacePart.RIGHT_EYE, (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466), True),
    (FacePart.MOUTH, (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185), True),
    (FacePart.MOUTH, (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191), True),
)
IRIS_CURVES: tuple[CurveIndices, ...] = ((FacePart.LEFT_PUPIL, (468,), False), (FacePart.RIGHT_PUPIL, (473,), False))

# For each of the 68 iBUG points, the nearest point of the other layout.
IBUG68_FROM_106 = (
    1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17,  # jaw
    43, 48, 49, 51, 50, 102, 103, 104, 105, 101,  # brows
    72, 73, 74, 86, 78, 79, 80, 85, 84,  # nose
    35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90,  # eyes
    52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54,  # mouth
)
IBUG68_FROM_MESH = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # mouth
)
# fmt: on

LAYOUTS = (5, 68, 106, 468, 478)

FOREHEAD = 0.3
"""Height of the forehead that 68 and 106 points leave out, as a fraction of the distance from the chin to the brows.

On scikit-image's astronaut MediaPipe's mesh ends at 0.21 and the box of a detector (MTCNN) at 0.32.
"""


def check_landmarks(landmarks: np.ndarray) -> None:
    """Raises InvalidInputError unless the points are of a known layout."""
    if landmarks.ndim != 2 or landmarks.shape[1] != 2 or landmarks.shape[0] not in LAYOUTS:
        raise InvalidInputError(
            f"face landmarks have the shape {tuple(landmarks.shape)}, which is not a known layout: expected "
            f"(num_points, 2) with {', '.join(map(str, LAYOUTS[:-1]))} or {LAYOUTS[-1]} points"
        )


def as_ibug68(landmarks: np.ndarray) -> np.ndarray:
    """Returns the 68 iBUG points of a denser layout.

    Args:
        landmarks: (num_points, 2), 68 or more points.
    Returns:
        (68, 2), chosen from the given points.
    Raises:
        InvalidInputError: the layout is unknown, or has five points only.
    Source: nearest points of the published topologies; no point is interpolated.
    """
    check_landmarks(landmarks)
    if len(landmarks) == 68:
        return landmarks
    if len(landmarks) == 106:
        return landmarks[list(IBUG68_FROM_106)]
    if len(landmarks) in (468, 478):
        return landmarks[list(IBUG68_FROM_MESH)]
    raise InvalidInputError(
        "68 landmarks cannot be made from five; use a detector with 68 or more, or the style 'instantid'"
    )


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Returns the eye centres, nose tip and mouth corners of any layout, by which faces are aligned.

    Args:
        landmarks: (num_points, 2) of a known layout.
    Returns:
        (5, 2): left eye, right eye, nose tip, left and right mouth corner; NaN if a point was not seen.
    Raises:
        InvalidInputError: the layout is unknown.
    """
    check_landmarks(landmarks)
    if len(landmarks) == 5:
        return landmarks
    ibug = as_ibug68(landmarks)
    eyes = [ibug[36:42].mean(axis=0), ibug[42:48].mean(axis=0)]
    return np.stack([*eyes, ibug[30], ibug[48], ibug[54]])


def face_curves(landmarks: np.ndarray) -> tuple[Curve, ...]:
    """Returns jaw, brows, nose, eyes and mouth as lines, at the full resolution of the layout.

    Args:
        landmarks: (num_points, 2) of a known layout; 106 points are drawn as their 68.
    Returns:
        The curves; five points give dots and one line between the mouth's corners.
    Raises:
        InvalidInputError: the layout is unknown.
    """
    check_landmarks(landmarks)
    if len(landmarks) == 5:
        curves, points = FIVE_CURVES, landmarks
    elif len(landmarks) in (468, 478):
        curves, points = MESH_CURVES + (IRIS_CURVES if len(landmarks) == 478 else ()), landmarks
    else:
        curves, points = IBUG68_CURVES, as_ibug68(landmarks)
    return tuple(Curve(part, points[list(indices)], is_closed) for part, indices, is_closed in curves)


def face_outline(landmarks: np.ndarray) -> np.ndarray | None:
    """Returns the convex outline of a face, including the forehead.

    Args:
        landmarks: (num_points, 2) of a known layout.
    Returns:
        (num_corners, 2) corners of the convex hull; None for five points, or if too few were seen.
    Raises:
        InvalidInputError: the layout is unknown.
    """
    check_landmarks(landmarks)
    if len(landmarks) == 5:
        return None
    points = landmarks
    if len(landmarks) in (68, 106):
        ibug = as_ibug68(landmarks)
        brows = _seen(ibug[17:27])
        if len(brows):
            points = np.concatenate([landmarks, brows + FOREHEAD * (brows.mean(axis=0) - ibug[8])])
    points = _seen(points)
    if len(points) < 3:
        return None
    with importing(OPENCV):
        import cv2
    return cv2.convexHull(points.astype(np.float32))[:, 0]


def _seen(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(axis=1)]
