"""Condition images: face landmarks and body skeletons drawn the way that the public ControlNets were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

import cv2
import numpy as np
import torch

from ..errors import InvalidInputError
from ..shapes import Extent
from .face import Body, Face, PictureFaces
from .landmarks import FacePart, as_ibug68, face_curves, five_points
from .skeleton import COLORS, LIMB_BRIGHTNESS, LIMBS

Color = tuple[int, int, int]


class FaceStyle(str, Enum):
    """How face landmarks are drawn."""

    OPENPOSE = "openpose"
    """A white dot per point (68, or the five there are): OpenPose ControlNets."""

    CURVES = "curves"
    """Jaw, brows, nose, eyes and mouth as coloured lines, in the colours of the MediaPipe face ControlNet."""

    INSTANTID = "instantid"
    """Eyes, nose tip and mouth corners as five coloured dots with spokes to the nose: InstantID's ControlNet."""


class DrawnParts(str, Enum):
    """What a condition image shows."""

    FACE = "face"
    BODY = "body"
    FACE_AND_BODY = "face_and_body"


WHITE: Color = (255, 255, 255)

CURVE_COLORS: dict[FacePart, Color] = {
    FacePart.JAW: (10, 200, 10),
    FacePart.LEFT_BROW: (180, 220, 10),
    FacePart.LEFT_EYE: (180, 200, 10),
    FacePart.LEFT_PUPIL: (250, 200, 10),
    FacePart.RIGHT_BROW: (10, 220, 180),
    FacePart.RIGHT_EYE: (10, 200, 180),
    FacePart.RIGHT_PUPIL: (10, 200, 250),
    FacePart.MOUTH: (10, 180, 10),
    FacePart.NOSE: (200, 200, 200),  # the MediaPipe ControlNet has none
}

FIVE_COLORS: tuple[Color, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
FIVE_NOSE = 2

# Half widths and radii in pixels, and the shorter side of the pictures that the preprocessors draw them on.
REFERENCE_SIDE = 512
LIMB_HALF_WIDTH = 4
KEYPOINT_RADIUS = 4
FACE_DOT_RADIUS = 3
CURVE_WIDTH = 2
INSTANTID_REFERENCE_SIDE = 1024
INSTANTID_DOT_RADIUS = 10


def draw_conditions(
    pictures: Sequence[PictureFaces],
    parts: DrawnParts,
    style: FaceStyle,
    width: int = 0,
    height: int = 0,
    line_width: float = 1.0,
    min_confidence: float = 0.3,
) -> torch.Tensor:
    """Faces and bodies on black, one condition image per picture.

    Args:
        pictures: faces and bodies, in pixels of their own picture.
        parts: what is drawn.
        style: how faces are drawn.
        width: pixels of the result, to which coordinates are stretched. 0 follows `height` at the picture's aspect
            ratio; both 0 is the picture's own size.
        height: as `width`.
        line_width: 1 = the widths that the ControlNets were trained on, relative to the shorter side of the result.
        min_confidence: body keypoints of which the detector was less sure are left out.
    Returns:
        (batch, height, width, 3) float32 in [0, 1]; black where a picture shows nobody.
    Raises:
        InvalidInputError: there is no picture, a face has no landmarks, there are faces but no body where bodies are
            asked for, or the pictures differ in size and none is given.
    """
    if not pictures:
        raise InvalidInputError("there is no picture to draw: the faces come from an empty batch")
    with_faces, with_bodies = parts is not DrawnParts.BODY, parts is not DrawnParts.FACE
    if with_bodies and any(picture.faces for picture in pictures) and not any(picture.bodies for picture in pictures):
        raise InvalidInputError("faces are known but no body: connect a pose to `skeleton`, or draw the face only")
    sizes = {_drawn_extent(picture.extent, width, height) for picture in pictures}
    if len(sizes) > 1:
        listed = ", ".join(sorted(map(str, sizes)))
        raise InvalidInputError(f"the pictures would be drawn at different sizes ({listed}); give width and height")
    (extent,) = sizes
    images = []
    for number, picture in enumerate(pictures, start=1):
        canvas = Canvas(extent, picture.extent, line_width)
        if with_bodies:
            draw_bodies(canvas, picture.bodies, min_confidence)
        if with_faces:
            for place, face in enumerate(picture.faces, start=1):
                draw_face(canvas, _landmarks(face, f"face {place} of picture {number}"), style)
        images.append(canvas.pixels)
    return torch.from_numpy(np.stack(images)).float() / 255


class Canvas:
    """A black picture with anti-aliased drawing at sub-pixel precision; coordinates are those of the source picture."""

    def __init__(self, extent: Extent, source: Extent, line_width: float) -> None:
        self.pixels = np.zeros((extent.height, extent.width, 3), np.uint8)
        self._scale = np.array([extent.width / source.width, extent.height / source.height])
        self._unit = line_width * min(extent.width, extent.height)

    def dot(self, point: np.ndarray, radius: float, color: Color) -> None:
        """A filled circle; `radius` is a fraction of the shorter side."""
        if (center := self._place(point)) is not None:
            radius_fixed = _fixed_length(max(self._unit * radius, 0.5))
            cv2.circle(self.pixels, _fixed(center), radius_fixed, color, cv2.FILLED, cv2.LINE_AA, FIXED_BITS)

    def line(self, start: np.ndarray, end: np.ndarray, width: float, color: Color) -> None:
        """A line with round ends; `width` is a fraction of the shorter side."""
        a, b = self._place(start), self._place(end)
        if a is not None and b is not None:
            width_px = max(round(self._unit * width), 1)
            cv2.line(self.pixels, _fixed(a), _fixed(b), color, width_px, cv2.LINE_AA, FIXED_BITS)

    def spindle(self, start: np.ndarray, end: np.ndarray, half_width: float, color: Color) -> None:
        """A filled ellipse from point to point, OpenPose's limb; `half_width` is a fraction of the shorter side."""
        a, b = self._place(start), self._place(end)
        if a is None or b is None:
            return
        axes = _fixed_length(float(np.hypot(*(b - a))) / 2), _fixed_length(max(self._unit * half_width, 0.5))
        angle = float(np.degrees(np.arctan2(b[1] - a[1], b[0] - a[0])))
        cv2.ellipse(self.pixels, _fixed((a + b) / 2), axes, angle, 0, 360, color, cv2.FILLED, cv2.LINE_AA, FIXED_BITS)

    def _place(self, point: np.ndarray) -> np.ndarray | None:
        """Pixels of the result as cv2 counts them, from the centre of the first; None where the point was not seen."""
        placed = np.asarray(point, dtype=np.float64)[:2] * self._scale - 0.5
        return placed.clip(-FARTHEST_PX, FARTHEST_PX) if np.isfinite(placed).all() else None


FIXED_BITS = 8
FARTHEST_PX = 32_000  # what cv2's fixed-point coordinates hold


def draw_face(canvas: Canvas, landmarks: np.ndarray, style: FaceStyle) -> None:
    """One face in the chosen style; `landmarks` (num_points, 2) of a known layout, in pixels of the source picture."""
    if style is FaceStyle.OPENPOSE:
        for point in landmarks if len(landmarks) == 5 else as_ibug68(landmarks):
            canvas.dot(point, FACE_DOT_RADIUS / REFERENCE_SIDE, WHITE)
    elif style is FaceStyle.INSTANTID:
        _draw_five(canvas, five_points(landmarks))
    else:
        _draw_curves(canvas, landmarks)


def _draw_curves(canvas: Canvas, landmarks: np.ndarray) -> None:
    for curve in face_curves(landmarks):
        color = CURVE_COLORS[curve.part]
        if len(curve.points) == 1:
            canvas.dot(curve.points[0], CURVE_WIDTH / REFERENCE_SIDE, color)
            continue
        points = [*curve.points, curve.points[0]] if curve.is_closed else curve.points
        for start, end in pairwise(points):
            canvas.line(start, end, CURVE_WIDTH / REFERENCE_SIDE, color)


def _draw_five(canvas: Canvas, points: np.ndarray) -> None:
    for index, color in enumerate(FIVE_COLORS):
        if index != FIVE_NOSE:
            half_width = LIMB_HALF_WIDTH / INSTANTID_REFERENCE_SIDE
            canvas.spindle(points[index], points[FIVE_NOSE], half_width, _darkened(color))
    for point, color in zip(points, FIVE_COLORS, strict=True):
        canvas.dot(point, INSTANTID_DOT_RADIUS / INSTANTID_REFERENCE_SIDE, color)


def draw_bodies(canvas: Canvas, bodies: Sequence[Body], min_confidence: float) -> None:
    """The limbs of all bodies, then their keypoints on top."""
    for body in bodies:
        is_seen = body.keypoints[:, 2] >= max(min_confidence, 1e-6)
        for (start, end), color in zip(LIMBS, COLORS, strict=False):  # 17 limbs, 18 keypoints
            if is_seen[start] and is_seen[end]:
                half_width = LIMB_HALF_WIDTH / REFERENCE_SIDE
                canvas.spindle(body.keypoints[start], body.keypoints[end], half_width, _darkened(color))
    for body in bodies:
        for keypoint, color in zip(body.keypoints, COLORS, strict=True):
            if keypoint[2] >= max(min_confidence, 1e-6):
                canvas.dot(keypoint, KEYPOINT_RADIUS / REFERENCE_SIDE, color)


def _landmarks(face: Face, name: str) -> np.ndarray:
    if face.landmarks is None:
        raise InvalidInputError(f"{name} has a box but no landmarks; use an analyser that finds landmarks")
    return face.landmarks


def _drawn_extent(source: Extent, width: int, height: int) -> Extent:
    if width and height:
        return Extent(width, height)
    if width:
        return Extent(width, max(round(source.height * width / source.width), 1))
    if height:
        return Extent(max(round(source.width * height / source.height), 1), height)
    return source


def _darkened(color: Color) -> Color:
    red, green, blue = (int(value * LIMB_BRIGHTNESS) for value in color)
    return red, green, blue


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = (round(float(value) * 2**FIXED_BITS) for value in point)
    return x, y


def _fixed_length(length_px: float) -> int:
    return round(length_px * 2**FIXED_BITS)
