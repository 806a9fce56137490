"""Reads the pictures of a training set, in whatever mode they were saved."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP")
"""The only formats that are opened, whatever the file's name is. Pillow runs other programs for some of the others."""

WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of 16-bit grey pictures, which it would cut off at 255 instead of scaling them."""


def read_picture(content: bytes, *, is_mask: bool) -> NDArray[np.uint8]:
    """Reads a picture upright, as 8-bit values. What is transparent is black.

    Args:
        content: a PNG, JPEG or WebP file.
        is_mask: for grey values; else for colours.
    Returns:
        (height, width) for a mask, else (height, width, 3) RGB.
    Raises:
        Exception: whatever Pillow raises for a file that it cannot read.
    """
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content), formats=FORMATS))
    if picture.mode in WIDE_MODES:
        picture = Image.fromarray(_as_bytes(np.asarray(picture)))
    elif picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    return np.array(picture.convert("L" if is_mask else "RGB"))


def _as_bytes(values: np.ndarray) -> NDArray[np.uint8]:
    """Scales 16-bit values to 8 bits."""
    wide = values.astype(np.int64)
    return ((wide * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8)
