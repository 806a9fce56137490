"""Condition images: face landmarks and body skeletons, drawn as the public ControlNets were trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

import numpy as np
import torch

from ..errors import InvalidInputError
from ..shapes import Extent
from .coverage import Disc, Ellipse, Shape, Stroke, coverage
from .face import Body, Face, PictureFaces
from .landmarks import FacePart, as_ibug68, face_curves, five_points
from .skeleton import COLORS, LIMB_BRIGHTNESS, LIMBS

Color = tuple[int, int, int]


class FaceStyle(str, Enum):
    """How face landmarks are drawn."""

    OPENPOSE = "openpose"
    """A white dot per point (68 or five), for OpenPose ControlNets."""

    CURVES = "curves"
    """Jaw, brows, nose, eyes and mouth as coloured lines, in the colours of the MediaPipe face ControlNet."""

    INSTANTID = "instantid"
    """Eyes, nose tip and mouth corners as five coloured dots with lines to the nose, for InstantID's ControlNet."""


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

# Radii and half widths as the preprocessors draw them, in pixels of a picture whose shorter side is the reference. cv2
# draws limbs half a pixel wider than the preprocessors ask for, and lines a third of a pixel wider.
REFERENCE_SIDE = 512
KEYPOINT_RADIUS = 4 / REFERENCE_SIDE
LIMB_HALF_WIDTH = 4.5 / REFERENCE_SIDE
FACE_DOT_RADIUS = 3 / REFERENCE_SIDE
CURVE_HALF_WIDTH = 1.3 / REFERENCE_SIDE
PUPIL_RADIUS = 2 / REFERENCE_SIDE
INSTANTID_REFERENCE_SIDE = 1024
INSTANTID_DOT_RADIUS = 10 / INSTANTID_REFERENCE_SIDE
INSTANTID_SPOKE_HALF_WIDTH = 4.5 / INSTANTID_REFERENCE_SIDE

MIN_HALF_WIDTH_PX = 0.5
"""Thinner lines would fade."""


def draw_conditions(
    pictures: Sequence[PictureFaces],
    parts: DrawnParts,
    style: FaceStyle,
    *,
    width: int = 0,
    height: int = 0,
    line_width: float = 1.0,
    min_confidence: float = 0.3,
) -> torch.Tensor:
    """Draws faces and bodies on black, one condition image per picture.

    Args:
        pictures: faces and bodies, in pixels of their own picture.
        parts: what is drawn.
        style: how faces are drawn.
        width: width of the result in pixels; coordinates are stretched to it. 0 follows from `height` at the picture's
            aspect ratio; if both are 0, the result has the picture's own size.
        height: as `width`.
        line_width: factor on the widths that the ControlNets were trained on, which are relative to the shorter side of
            the result.
        min_confidence: body keypoints with a lower confidence are left out.
    Returns:
        (batch, height, width, 3) float32 in [0, 1]; black if a picture shows nobody.
    Raises:
        InvalidInputError: there is no picture, a face has no landmarks, bodies are asked for and there are faces but
            no body, or the pictures differ in size and none is given.
    """
    if not pictures:
        raise InvalidInputError("there is no picture to draw: the faces come from an empty batch")
    with_faces, with_bodies = parts is not DrawnParts.BODY, parts is not DrawnParts.FACE
    if with_bodies and any(picture.faces for picture in pictures) and not any(picture.bodies for picture in pictures):
        raise InvalidInputError("there are faces but no bodies: connect a pose to `skeleton`, or set `what` to `face`")
    sizes = {_drawn_extent(picture.extent, width, height) for picture in pictures}
    if len(sizes) > 1:
        listed = ", ".join(sorted(map(str, sizes)))
        raise InvalidInputError(f"the pictures would be drawn at different sizes ({listed}); set width and height")
    (extent,) = sizes
    images: list[np.ndarray] = []
    for number, picture in enumerate(pictures, start=1):
        canvas = Canvas(extent, picture.extent, line_width)
        if with_bodies:
            draw_bodies(canvas, picture.bodies, min_confidence)
        if with_faces:
            for place, face in enumerate(picture.faces, start=1):
                landmarks = _landmarks(face, f"face {place} of picture {number}")
                draw_face(canvas, drawn_points(face, landmarks, style), style)
        images.append(canvas.pixels)
    return torch.as_tensor(np.stack(images))


class Canvas:
    """A black picture to draw on.

    Coordinates are pixels of the source picture. Lengths are fractions of the shorter side of this one. Nothing is
    drawn at a point that was not seen.
    """

    def __init__(self, extent: Extent, source: Extent, line_width: float) -> None:
        self.pixels = np.zeros((extent.height, extent.width, 3), np.float32)
        self._extent = extent
        self._scale = np.array([extent.width / source.width, extent.height / source.height])
        self._unit = line_width * min(extent.width, extent.height)

    def dot(self, point: np.ndarray, *, radius: float, color: Color) -> None:
        """A filled circle."""
        center = self._place(point)
        if np.isfinite(center).all():
            self._paint(Disc((center[0], center[1]), self._length(radius)), color)

    def line(self, start: np.ndarray, end: np.ndarray, *, half_width: float, color: Color) -> None:
        """A line with round ends."""
        (x0, y0), (x1, y1) = self._place(start), self._place(end)
        if np.isfinite((x0, y0, x1, y1)).all():
            self._paint(Stroke((x0, y0), (x1, y1), self._length(half_width)), color)

    def spindle(self, start: np.ndarray, end: np.ndarray, *, half_width: float, color: Color) -> None:
        """Draws an ellipse from point to point, as OpenPose's limb."""
        (x0, y0), (x1, y1) = self._place(start), self._place(end)
        if np.isfinite((x0, y0, x1, y1)).all():
            half_axes = max(math.hypot(x1 - x0, y1 - y0) / 2, MIN_HALF_WIDTH_PX), self._length(half_width)
            center = (x0 + x1) / 2, (y0 + y1) / 2
            self._paint(Ellipse(center, half_axes, math.atan2(y1 - y0, x1 - x0)), color)

    def _place(self, point: np.ndarray) -> tuple[float, float]:
        x, y = np.asarray(point, dtype=np.float64)[:2] * self._scale
        return float(x), float(y)

    def _length(self, fraction: float) -> float:
        return max(self._unit * fraction, MIN_HALF_WIDTH_PX)

    def _paint(self, shape: Shape, color: Color) -> None:
        part, covered = coverage(shape, self._extent)
        below = self.pixels[part]
        self.pixels[part] = below + covered[..., None].astype(np.float32) * (np.array(color, np.float32) / 255 - below)


def drawn_points(face: Face, landmarks: np.ndarray, style: FaceStyle) -> np.ndarray:
    """Returns the points that a style draws: for InstantID the detector's own five, on which it was trained.

    Args:
        face: the face.
        landmarks: its landmarks, (num_points, 2), from which they follow if the detector gave none.
        style: how the face is drawn.
    Source: InstantID's `draw_kps(image, face_info["kps"])`.
    """
    own = face.keypoints if style is FaceStyle.INSTANTID else None
    return landmarks if own is None else own


def draw_face(canvas: Canvas, landmarks: np.ndarray, style: FaceStyle) -> None:
    """Draws one face; `landmarks` (num_points, 2) have a known layout and are in pixels of the source picture."""
    if style is FaceStyle.OPENPOSE:
        for point in landmarks if len(landmarks) == 5 else as_ibug68(landmarks):
            canvas.dot(point, radius=FACE_DOT_RADIUS, color=WHITE)
    elif style is FaceStyle.INSTANTID:
        _draw_five(canvas, five_points(landmarks))
    else:
        _draw_curves(canvas, landmarks)


def _draw_curves(canvas: Canvas, landmarks: np.ndarray) -> None:
    for curve in face_curves(landmarks):
        color = CURVE_COLORS[curve.part]
        if len(curve.points) == 1:
            canvas.dot(curve.points[0], radius=PUPIL_RADIUS, color=color)
            continue
        points = [*curve.points, curve.points[0]] if curve.is_closed else curve.points
        for start, end in pairwise(points):
            canvas.line(start, end, half_width=CURVE_HALF_WIDTH, color=color)


def _draw_five(canvas: Canvas, points: np.ndarray) -> None:
    for index, color in enumerate(FIVE_COLORS):
        if index != FIVE_NOSE:
            spoke = points[index], points[FIVE_NOSE]
            canvas.spindle(*spoke, half_width=INSTANTID_SPOKE_HALF_WIDTH, color=_darkened(color))
    for point, color in zip(points, FIVE_COLORS, strict=True):
        canvas.dot(point, radius=INSTANTID_DOT_RADIUS, color=color)


def draw_bodies(canvas: Canvas, bodies: Sequence[Body], min_confidence: float) -> None:
    """Draws the limbs of all bodies, and then their keypoints on top."""
    for body in bodies:
        is_seen = body.keypoints[:, 2] >= max(min_confidence, 1e-6)
        for (start, end), color in zip(LIMBS, COLORS, strict=False):  # 17 limbs, 18 keypoints
            if is_seen[start] and is_seen[end]:
                limb = body.keypoints[start], body.keypoints[end]
                canvas.spindle(*limb, half_width=LIMB_HALF_WIDTH, color=_darkened(color))
    for body in bodies:
        for keypoint, color in zip(body.keypoints, COLORS, strict=True):
            if keypoint[2] >= max(min_confidence, 1e-6):
                canvas.dot(keypoint, radius=KEYPOINT_RADIUS, color=color)


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
