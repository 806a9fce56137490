"""How sharp a picture is."""

from __future__ import annotations

import numpy as np

from ..packages import OPENCV, importing

SIDE_PX = 256
TILES = 4


def clarity(picture: np.ndarray) -> float:
    """Measures the sharpest part of a picture at a fixed scale: a face in front of a blurred background is sharp.

    The shorter side is scaled to 256 pixels, so that the measure does not depend on the resolution. A picture that was
    enlarged from a much smaller one is therefore blurred.

    Args:
        picture: (height, width, 3) uint8 RGB.
    Returns:
        The variance of the Laplacian of the grey values (0 to 255) in the sharpest of 4 x 4 tiles.
    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", per tile.
    """
    with importing(OPENCV):
        import cv2
    height, width = picture.shape[:2]
    scale = SIDE_PX / min(height, width)
    size = max(SIDE_PX, round(width * scale)), max(SIDE_PX, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=method), cv2.COLOR_RGB2GRAY)
    laplacian = np.asarray(cv2.Laplacian(grey.astype(np.float32), cv2.CV_32F))
    tiles = [tile for row in np.array_split(laplacian, TILES) for tile in np.array_split(row, TILES, axis=1)]
    return float(max(tile.var() for tile in tiles))
