"""Cuts a picture to the size of a training set, around a face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..geometry import Box
from ..packages import OPENCV, importing
from ..shapes import Extent

EYE_LEVEL = 0.4
"""Where the middle of the face would be in a higher picture, as a fraction of the height from the top."""

FACE_MARGIN = 0.6
"""What a crop of a face holds beside it on each side, as a fraction of the face: enough for any detector."""

MAX_FACE_PX = 256


def frame_face(picture: Extent, face: Box, target: Extent) -> Box | None:
    """Returns the largest window of the target's aspect ratio that holds a face.

    Args:
        picture: the size of the picture.
        face: the face in pixels of it.
        target: the size of the training set's pictures.
    Returns:
        The window in whole pixels of the picture, with the face in its middle or as near to it as the picture's edges
        allow; None if no window holds all of the face that the picture shows.
    """
    scale = min(picture.width / target.width, picture.height / target.height)
    width, height = int(target.width * scale), int(target.height * scale)
    seen = face.clipped(picture)
    if width < seen.width or height < seen.height or seen.area == 0:
        return None
    middle_x, middle_y = seen.center
    x0 = min(max(round(middle_x - width / 2), 0), picture.width - width)
    y0 = min(max(round(middle_y - EYE_LEVEL * height), 0), picture.height - height)
    y0 = min(max(y0, int(np.ceil(seen.y1)) - height), int(seen.y0))
    return Box(x0, y0, x0 + width, y0 + height)


def cut(picture: np.ndarray, window: Box, target: Extent) -> NDArray[np.uint8]:
    """Returns a window of a picture, scaled.

    Args:
        picture: (height, width) or (height, width, channels) uint8.
        window: whole pixels inside the picture.
        target: the size of the result.
    """
    with importing(OPENCV):
        import cv2
    part = picture[int(window.y0) : int(window.y1), int(window.x0) : int(window.x1)]
    method = cv2.INTER_AREA if target.height < part.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (target.width, target.height), interpolation=method), dtype=np.uint8)


def moved(points: np.ndarray, window: Box, target: Extent) -> NDArray[np.float64]:
    """Returns where the points of a picture are in the scaled window.

    Args:
        points: (num, 2) x and y, or (num, 3) with a confidence, which stays.
        window, target: as in `cut`.
    """
    placed = np.array(points, dtype=np.float64)
    placed[:, 0] = (placed[:, 0] - window.x0) * target.width / window.width
    placed[:, 1] = (placed[:, 1] - window.y0) * target.height / window.height
    return placed


def face_crop(picture: np.ndarray, face: Box) -> NDArray[np.uint8]:
    """Returns a face with its surroundings, as far as the picture shows them, at most 256 pixels long.

    Args:
        picture: (height, width, 3) uint8.
        face: in pixels of it.
    """
    extent = Extent(picture.shape[1], picture.shape[0])
    around = face.grown(FACE_MARGIN).clipped(extent)
    x0, y0 = int(around.x0), int(around.y0)
    window = Box(x0, y0, max(int(np.ceil(around.x1)), x0 + 1), max(int(np.ceil(around.y1)), y0 + 1))
    scale = min(1.0, MAX_FACE_PX / max(window.width, window.height))
    return cut(picture, window, Extent(max(round(window.width * scale), 1), max(round(window.height * scale), 1)))
