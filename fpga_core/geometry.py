"""Boxes and their relations, in pixels or as fractions of a picture."""

from __future__ import annotations

from dataclasses import dataclass

from .shapes import Extent


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, `x0 <= x < x1` and `y0 <= y < y1`; the unit is the caller's (pixels, or fractions 0-1)."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return max(self.x1 - self.x0, 0.0)

    @property
    def height(self) -> float:
        return max(self.y1 - self.y0, 0.0)

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def contains(self, point: tuple[float, float]) -> bool:
        return self.x0 <= point[0] < self.x1 and self.y0 <= point[1] < self.y1

    def iou(self, other: Box) -> float:
        """Intersection over union with `other`, in [0, 1]; 0 if both are empty."""
        overlap = self.intersection(other).area
        union = self.area + other.area - overlap
        return overlap / union if union > 0 else 0.0

    def intersection(self, other: Box) -> Box:
        return Box(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def grown(self, fraction: float) -> Box:
        """Returns the box with `fraction` of its own width and height added on every side."""
        dx, dy = self.width * fraction, self.height * fraction
        return Box(self.x0 - dx, self.y0 - dy, self.x1 + dx, self.y1 + dy)

    def clipped(self, extent: Extent) -> Box:
        return self.intersection(Box(0, 0, extent.width, extent.height))

    def normalised(self, extent: Extent) -> Box:
        """Converts pixels to fractions of a picture of `extent`."""
        return self.scaled(1 / extent.width, 1 / extent.height)

    def scaled(self, sx: float, sy: float) -> Box:
        return Box(self.x0 * sx, self.y0 * sy, self.x1 * sx, self.y1 * sy)
