"""The region of a face as a mask, from its landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..faces.landmarks import face_outline
from ..packages import OPENCV, importing
from ..shapes import Extent


def hull_mask(landmarks: np.ndarray, extent: Extent) -> NDArray[np.uint8]:
    """Fills the outline of a face, including the forehead.

    Args:
        landmarks: (num_points, 2) pixels, of any layout but five points.
        extent: size of the mask.
    Returns:
        (height, width), 255 on the face; all 0 if too few points were seen.
    """
    with importing(OPENCV):
        import cv2
    mask = np.zeros((extent.height, extent.width), np.uint8)
    outline = face_outline(landmarks)
    if outline is not None:
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 255)
    return mask
