"""Square crops around faces: their place in the picture, and how they are cut out and placed back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.face import Face
from ..faces.landmarks import five_points
from ..geometry import Box
from ..shapes import Extent

TAPS_PX = 2
"""The pixels beyond a sampled position that bicubic interpolation reads."""

QUARTER = math.pi / 2

MAX_TILT = math.radians(25)
"""Up to here faces are not turned: people tilt their heads so far in photographs, so models and recognisers know it,
and every turn costs sharpness, twice."""

AFFINE_BASIS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
"""Three positions that determine an affine map, x then y, from -1 to 1 between the outer edges of a picture."""


@dataclass(frozen=True)
class CropSquare:
    """A square of a picture, and its size as a crop.

    Attributes:
        center: pixels of the picture, x then y.
        side_px: length of a side, pixels of the picture.
        angle: radians by which the square is turned clockwise, so that a tilted face is upright in it.
        size_px: side of the crop, its own pixels.
    """

    center: tuple[float, float]
    side_px: float
    angle: float
    size_px: int

    @property
    def scale(self) -> float:
        """The crop pixels per picture pixel."""
        return self.size_px / self.side_px

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Converts points, (n, 2), from picture pixels to crop pixels."""
        return (points - self.center) @ self._axes * self.scale + self.size_px / 2

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Converts points, (n, 2), from crop pixels to picture pixels."""
        return (points - self.size_px / 2) / self.scale @ np.transpose(self._axes) + self.center

    def bounds(self, extent: Extent, margin_px: int = 0) -> Box:
        """Returns the smallest box of whole pixels that contains the square, within the picture."""
        half = self.side_px / 2 * (abs(math.cos(self.angle)) + abs(math.sin(self.angle))) + margin_px
        (x, y), slack = (
            self.center,
            1e-6,
        )  # a square on whole pixels does not take one more pixel because of a rounding error
        box = Box(x - half + slack, y - half + slack, x + half - slack, y + half - slack)
        whole = Box(math.floor(box.x0), math.floor(box.y0), math.ceil(box.x1), math.ceil(box.y1))
        return whole.clipped(extent)

    def face_in_crop(self, face: Face) -> Face:
        """Converts a face to crop pixels; its box is the smallest upright one around the turned box."""
        box, landmarks, keypoints = face.box, face.landmarks, face.keypoints
        corners = np.array([[x, y] for x in (box.x0, box.x1) for y in (box.y0, box.y1)])
        turned = self.to_crop(corners)
        return replace(
            face,
            box=Box(*turned.min(axis=0), *turned.max(axis=0)),
            landmarks=None if landmarks is None else self.to_crop(landmarks),
            keypoints=None if keypoints is None else self.to_crop(keypoints),
        )

    @property
    def _axes(self) -> np.ndarray:
        """Returns the crop's x and y directions in the picture, as columns."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        return np.array([[c, -s], [s, c]])


def face_square(face: Face, extent: Extent, *, margin: float, is_upright: bool | None, size_px: int) -> CropSquare:
    """Returns the square around a face.

    A square that crosses a border is moved into the picture. If the picture is too small for it, the outermost pixels
    are repeated.

    Args:
        face: box and, for turning, landmarks in pixels of the picture.
        extent: the picture.
        margin: extension on every side, as a fraction of the longer side of the box.
        is_upright: turn the square with the line through the eyes, or not at all; None = as `turn_of` says. Without
            landmarks it is not turned.
        size_px: side of the crop.
    Returns:
        The square; where it is not turned, or turned by quarters, it lies on whole pixels.
    """
    side = max(math.ceil(face.size_px * (1 + 2 * margin) - 1e-6), 1)
    tilt = tilt_of(face) or 0.0
    angle = turn_of(tilt) if is_upright is None else (tilt if is_upright else 0.0)
    half = side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
    x, y = (
        min(max(center, half), length - half) if 2 * half <= length else length / 2
        for center, length in zip(face.box.center, (extent.width, extent.height), strict=True)
    )
    if angle % QUARTER == 0:
        # A half is rounded towards the crop's own right and bottom, so that a turned picture gives the turned crop.
        along_x, along_y = math.cos(angle) - math.sin(angle), math.cos(angle) + math.sin(angle)
        x, y = (
            along * math.floor(along * center - side / 2 + 0.5 + 1e-6) + along * side / 2
            for center, along in ((x, math.copysign(1, along_x)), (y, math.copysign(1, along_y)))
        )
    return CropSquare((x, y), side, angle, size_px)


def tilt_of(face: Face) -> float | None:
    """Radians by which a face is tilted clockwise as seen, from its eyes; None where they are not known."""
    if face.landmarks is None:
        return None
    left_eye, right_eye = five_points(face.landmarks)[:2]
    tilt = math.atan2(right_eye[1] - left_eye[1], right_eye[0] - left_eye[0])
    return tilt if math.isfinite(tilt) else None


def turn_of(tilt: float) -> float:
    """By how much a face is turned that need not stand exactly upright.

    It is turned by quarters, which loses nothing, and then by what is left if that is more than `MAX_TILT`.
    """
    quarters = round(tilt / QUARTER) * QUARTER
    return quarters if abs(tilt - quarters) <= MAX_TILT else tilt


def take_crop(picture: Tensor, square: CropSquare, *, mode: str = "bicubic") -> Tensor:
    """Returns the square of a picture at the size of the crop.

    Args:
        picture: (height, width, channels) in [0, 1]; values that are not finite count as 0.
        square: the place of the crop; beyond the border, the outermost pixels repeat.
        mode: bicubic for pictures, bilinear for masks.
    Returns:
        (size_px, size_px, channels) float32 in [0, 1]; reducing averages over all covered pixels.
    """
    extent = Extent(picture.shape[1], picture.shape[0])
    box = square.bounds(extent, margin_px=TAPS_PX)
    part = picture[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    part = _reduced(part.float().nan_to_num(0, 0, 0).movedim(-1, 0), square.scale, mode)  # HWC -> CHW

    points = square.to_picture((AFFINE_BASIS + 1) / 2 * square.size_px)
    source = (points - (box.x0, box.y0)) / (box.width, box.height) * 2 - 1
    size = Extent(square.size_px, square.size_px)
    crop = _sampled(part, source, size, mode=mode, padding="border")
    return crop.movedim(0, -1).clamp(0, 1)  # CHW -> HWC


def lay_crop(crop: Tensor, square: CropSquare, extent: Extent, *, mode: str = "bicubic") -> tuple[Tensor, Box]:
    """Resamples a crop to the pixels of its picture.

    Args:
        crop: (size, size, channels) in [0, 1]; `size` can differ from the square's `size_px` (an upscaled crop).
        square: its place.
        extent: the picture.
        mode: bicubic for pictures; bilinear for masks, which are 0 beyond the crop.
    Returns:
        (height, width, channels) float32 in [0, 1], and the box of whole pixels of the picture that it covers.
    """
    box = square.bounds(extent)
    reduced = _reduced(crop.float().movedim(-1, 0), square.side_px / crop.shape[0], mode)  # HWC -> CHW

    points = (AFFINE_BASIS + 1) / 2 * (box.width, box.height) + (box.x0, box.y0)
    source = square.to_crop(points) / square.size_px * 2 - 1
    padding = "border" if mode == "bicubic" else "zeros"
    size = Extent(int(box.width), int(box.height))
    laid = _sampled(reduced, source, size, mode=mode, padding=padding)
    return laid.movedim(0, -1).clamp(0, 1), box  # CHW -> HWC


def _reduced(picture: Tensor, factor: float, mode: str) -> Tensor:
    """Averages (channels, height, width) down by a factor below 1, so that sampling at the new size skips no pixel."""
    if factor >= 1:
        return picture
    size = [max(round(length * factor), 1) for length in picture.shape[-2:]]
    return F.interpolate(picture[None], size=size, mode=mode, antialias=True)[0]


def _sampled(picture: Tensor, source: np.ndarray, size: Extent, *, mode: str, padding: str) -> Tensor:
    """Samples a picture, (channels, height, width), through an affine map.

    Args:
        source: the positions in the picture, in the same coordinates, of `AFFINE_BASIS` in the result.
        size: size of the result.
    """
    origin, x_end, y_end = source
    theta = torch.as_tensor(np.stack([x_end - origin, y_end - origin, origin], axis=-1)).to(picture)
    grid = F.affine_grid(theta[None], [1, 1, size.height, size.width], align_corners=False)
    return F.grid_sample(picture[None], grid, mode=mode, padding_mode=padding, align_corners=False)[0]
