"""Crops of faces at the sizes that the autoencoder must reproduce, and the parts of each crop that show the face."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..fpga_core.geometry import Box
from ..fpga_core.shapes import Extent
from .gallery import scene_number
from .lessons import HEAD
from .painter import paint, paint_mask

CLOSE_UP_PX = 56
SMALLEST_PX, LARGEST_PX = 26.0, 80.0
"""The smallest and the largest height of a face."""
FARTHEST = 0.2
"""The largest distance between the middles of face and crop, as a fraction of the crop's side."""


@dataclass(frozen=True, eq=False)
class CloseUps:
    """Crops of faces.

    Attributes:
        pictures: (num, CLOSE_UP_PX, CLOSE_UP_PX, 3) uint8.
        parts: how much of each pixel is covered by the head, and by the facial features, (num, CLOSE_UP_PX,
            CLOSE_UP_PX, 2) uint8.
    """

    pictures: np.ndarray
    parts: np.ndarray


def face_close_ups(file: Path, num: int) -> CloseUps:
    """Returns one face of each of the scenes 0 to num - 1, rendered on the first call."""
    if not file.with_suffix(".npz").exists():
        with multiprocessing.Pool() as pool:
            pictures, parts = zip(*pool.imap(close_up, range(num), chunksize=100), strict=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file.with_suffix(".npz"), pictures=np.stack(pictures), parts=np.stack(parts))
    stored = np.load(file.with_suffix(".npz"))
    return CloseUps(stored["pictures"], stored["parts"])


def close_up(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one face of a scene at a random size, and its parts."""
    rng = np.random.default_rng((15, number))
    scene = scene_number(number)
    place = rng.integers(len(scene.actors))
    head = scene.actors[place].head
    side = 2 * head.radius * CLOSE_UP_PX / np.exp(rng.uniform(np.log(SMALLEST_PX), np.log(LARGEST_PX)))
    left, top = np.array([head.x, head.y]) - side / 2 + rng.uniform(-FARTHEST, FARTHEST, 2) * side
    scene = scene.zoomed(Box(left, top, left + side, top + side))
    points = scene.faces(Extent(CLOSE_UP_PX, CLOSE_UP_PX)).faces[place].landmarks[17:]
    features = np.zeros((CLOSE_UP_PX, CLOSE_UP_PX), np.uint8)
    cv2.fillConvexPoly(features, cv2.convexHull(points.round().astype(np.int32)), 255)
    features = cv2.dilate(features, np.ones((5, 5), np.uint8))
    return paint(scene, CLOSE_UP_PX), np.stack([paint_mask(scene.actors[place], CLOSE_UP_PX, HEAD), features], -1)
