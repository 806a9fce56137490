"""Anti-aliased shapes. The coverage of a pixel follows from the signed distance of its centre to the edge of the shape.

The result is the same on every machine and with every version, exact to a fraction of a pixel, and the same at every
scale, as condition images need it. Coordinates are continuous: the first pixel spans 0 to 1 and has its centre at 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..geometry import Box
from ..shapes import Extent


@dataclass(frozen=True)
class Disc:
    """A filled circle."""

    center: tuple[float, float]
    radius: float

    @property
    def bounds(self) -> Box:
        (x, y), r = self.center, self.radius
        return Box(x - r, y - r, x + r, y + r)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.hypot(x - self.center[0], y - self.center[1]) - self.radius


@dataclass(frozen=True)
class Stroke:
    """A line with round ends."""

    start: tuple[float, float]
    end: tuple[float, float]
    half_width: float

    @property
    def bounds(self) -> Box:
        (x0, y0), (x1, y1), r = self.start, self.end, self.half_width
        return Box(min(x0, x1) - r, min(y0, y1) - r, max(x0, x1) + r, max(y0, y1) + r)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        length_squared = max(dx * dx + dy * dy, 1e-12)
        along = (((x - self.start[0]) * dx + (y - self.start[1]) * dy) / length_squared).clip(0, 1)
        return np.hypot(x - self.start[0] - along * dx, y - self.start[1] - along * dy) - self.half_width


@dataclass(frozen=True)
class Ellipse:
    """A filled ellipse, its first half axis turned by `angle` (radians) from the x axis."""

    center: tuple[float, float]
    half_axes: tuple[float, float]
    angle: float = 0.0

    @property
    def bounds(self) -> Box:
        (x, y), (a, b) = self.center, self.half_axes
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        dx, dy = math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)
        return Box(x - dx, y - dy, x + dx, y + dy)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the implicit equation over its gradient's length: the distance to first order, exact at the edge."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        a, b = self.half_axes
        u = ((x - self.center[0]) * cos + (y - self.center[1]) * sin) / a
        v = ((y - self.center[1]) * cos - (x - self.center[0]) * sin) / b
        slope = 2 * np.hypot(u / a, v / b)
        return (u * u + v * v - 1) / np.maximum(slope, 1e-12)


@dataclass(frozen=True, eq=False)
class ConvexPolygon:
    """A filled convex polygon; corners (num_corners, 2) in either orientation."""

    corners: np.ndarray

    @property
    def bounds(self) -> Box:
        (x0, y0), (x1, y1) = self.corners.min(axis=0), self.corners.max(axis=0)
        return Box(float(x0), float(y0), float(x1), float(y1))

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the distance to the farthest of the edges' half planes, which is exact along the edges."""
        corners = np.asarray(self.corners, dtype=np.float64)
        following = np.roll(corners, -1, axis=0)
        area = np.sum(corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1])
        distance = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf)
        for (x0, y0), (x1, y1) in zip(corners, following, strict=True):
            length = math.copysign(math.hypot(x1 - x0, y1 - y0), area)
            if length:
                np.maximum(distance, ((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length, out=distance)
        return distance


Shape = Disc | Stroke | Ellipse | ConvexPolygon


def coverage(shape: Shape, extent: Extent) -> tuple[tuple[slice, slice], np.ndarray]:
    """Returns how much of each pixel a shape covers, in the part of a picture that it touches.

    Args:
        shape: in pixels of the picture; it can be partly or wholly outside.
        extent: size of the picture.
    Returns:
        The rows and columns of that part, and its (height, width) coverage in [0, 1].
    """
    bounds = shape.bounds
    bounds = Box(bounds.x0 - 1, bounds.y0 - 1, bounds.x1 + 1, bounds.y1 + 1).clipped(extent)
    columns = slice(math.floor(bounds.x0), max(math.ceil(bounds.x1), math.floor(bounds.x0)))
    rows = slice(math.floor(bounds.y0), max(math.ceil(bounds.y1), math.floor(bounds.y0)))
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5
    return (rows, columns), (0.5 - shape.distance(x, y)).clip(0, 1)
