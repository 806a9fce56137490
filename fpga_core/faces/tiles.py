"""Overlapping tiles, which show a detector the small faces of a large picture.

A detector shrinks what it looks at to its own input, usually 640 pixels, so a face of 60 pixels in a picture of 4,096
is 9 pixels to it. A picture that shrinks to no less than a third of its size is searched as a whole. A larger one is
searched as a whole for its large faces, and in tiles that shrink to a half for its small ones. If it is larger still,
tiles four times as large find the faces in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..shapes import Extent

FITS = 3
"""A picture fits that is at most this many times as long as the detector's input."""

MAX_SHRINK = 2
"""How many pixels of a tile may become one pixel of the detector's input, in each direction."""

LEVEL_RATIO = 4
"""How much larger the tiles of the next level are. A face that no tile shows whole has 30 pixels or more there."""

OVERLAP = 0.25
"""How much neighbouring tiles share, as a fraction of their side."""

MARGIN = 1 / 32
"""A box that comes this close to an edge inside the picture may belong to a face that the edge cuts (of the side)."""


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in whole pixels: `x0 <= x < x1` and `y0 <= y < y1`."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The rows and columns of the picture."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def shows_whole(self, boxes: np.ndarray, picture: Extent) -> NDArray[np.bool_]:
        """Returns which boxes keep their distance from the tile's edges inside the picture.

        A face of up to three sixteenths of a tile's side does so in at least one tile of its level.

        Args:
            boxes: (num_boxes, 4 or more) x0, y0, x1, y1 in pixels of the picture.
            picture: its size.
        Returns:
            (num_boxes,) bool.
        """
        margin = MARGIN * max(self.x1 - self.x0, self.y1 - self.y0)
        least = np.array([self.x0 + margin if self.x0 else -np.inf, self.y0 + margin if self.y0 else -np.inf])
        most_x = self.x1 - margin if self.x1 < picture.width else np.inf
        most_y = self.y1 - margin if self.y1 < picture.height else np.inf
        is_inside: NDArray[np.bool_] = np.logical_and(boxes[:, :2] >= least, boxes[:, 2:4] <= (most_x, most_y))
        return np.logical_and(is_inside[:, 0], is_inside[:, 1])


class TileDetector(Protocol):
    """A detector as insightface's are: it shrinks what it is given to its own input."""

    input_sizes: Sequence[tuple[int, int]]

    def detect(self, img: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (num_faces, 5) boxes with scores, and (num_faces, 5, 2) points or None, in pixels."""
        ...

    def nms(self, dets: np.ndarray) -> Sequence[int]:
        """Returns the rows that remain if boxes that overlap too much are reduced to the one of highest score."""
        ...


def detect_in_tiles(detector: TileDetector, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Finds the faces of a picture of any size, each once.

    Args:
        detector: searches each tile, and merges what several of them show by its own non-maximum suppression.
        picture: (height, width, 3) uint8, as the detector expects it.
    Returns:
        (num_faces, 5) x0, y0, x1, y1 and score, highest score first, and (num_faces, 5, 2) points, or None if the
        detector gives none. What the detector returns for the whole picture if that is the only tile.
    """
    extent = Extent(picture.shape[1], picture.shape[0])
    tiles = detection_tiles(extent, max(min(size) for size in detector.input_sizes))
    if len(tiles) == 1:
        return detector.detect(picture)
    boxes: list[np.ndarray] = []
    points: list[np.ndarray] = []
    for tile in tiles:
        seen, seen_points = detector.detect(np.ascontiguousarray(picture[tile.pixels]))
        moved = seen + np.array([tile.x0, tile.y0, tile.x0, tile.y0, 0], seen.dtype)
        is_whole = tile.shows_whole(moved, extent)
        boxes.append(moved[is_whole])
        if seen_points is not None:
            points.append((seen_points + np.array([tile.x0, tile.y0], seen_points.dtype))[is_whole])
    merged = np.concatenate(boxes)
    kept = list(detector.nms(merged))
    return merged[kept], np.concatenate(points)[kept] if len(points) == len(boxes) else None


def detection_tiles(picture: Extent, input_px: int) -> tuple[Tile, ...]:
    """Returns the parts of a picture that a detector searches: the whole picture first, then tiles if it is large.

    Args:
        picture: its size.
        input_px: the side of the detector's input.
    Returns:
        The whole picture alone if neither side is longer than `FITS * input_px`. Otherwise tiles too, at most
        square, which cover the picture at each level: 16 for a picture of 4096x4096 and an input of 640.
    """
    tiles = [Tile(0, 0, picture.width, picture.height)]
    longest = max(picture.width, picture.height)
    side = MAX_SHRINK * input_px
    while side < longest and longest > FITS * input_px:
        starts_x, starts_y = _starts(picture.width, side), _starts(picture.height, side)
        tiles += [
            Tile(x, y, min(x + side, picture.width), min(y + side, picture.height)) for y in starts_y for x in starts_x
        ]
        side *= LEVEL_RATIO
    return tuple(tiles)


def _starts(length: int, side: int) -> list[int]:
    """Returns where the tiles of one axis begin: evenly spread, and overlapping by `OVERLAP` or more."""
    if length <= side:
        return [0]
    number = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(index * (length - side) / (number - 1)) for index in range(number)]
