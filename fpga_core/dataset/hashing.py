"""A picture's perceptual hash, which hardly changes when the picture is scaled, compressed or brightened."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..packages import OPENCV, importing

SIDE_PX = 64
FREQUENCIES = 16
HASH_BITS = FREQUENCIES**2


def perceptual_hash(picture: np.ndarray) -> NDArray[np.uint8]:
    """Hashes what a picture looks like.

    Args:
        picture: (height, width, 3) uint8 RGB.
    Returns:
        (32,) bytes with 256 bits: for each of the 16 x 16 lowest frequencies of the picture's cosine transform, whether
        it is above their median.
    Source: pHash (Zauner 2010), with 16 x 16 frequencies in place of 8 x 8, which tell similar portraits apart.
    """
    with importing(OPENCV):
        import cv2
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:FREQUENCIES, :FREQUENCIES].ravel()
    low[0] = 0  # the brightness of the picture
    return np.packbits(low > np.median(low))
