"""Draws numbered, coloured people on a picture, for the previews of a cast and of its scores."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..geometry import Box
from ..shapes import Extent

Color = tuple[int, int, int]

# The palette of Okabe and Ito (2008) without black. It can be told apart with all common kinds of colour blindness.
PERSON_COLORS: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
)
NOBODY_COLOR: Color = (150, 150, 150)
BACKGROUND: Color = (34, 34, 34)

SHORTEST_PX, LONGEST_PX = 512, 1024
"""The limits of a preview's longer side. Text must be legible on a small canvas, and a large canvas costs time."""


def person_color(index: int) -> Color:
    """Returns the colour of the person at `index`. Colours repeat after seven people; numbers do not."""
    return PERSON_COLORS[index % len(PERSON_COLORS)]


class Sheet:
    """A picture to draw people on. Coordinates are fractions of the picture.

    Args:
        extent: size of the canvas; the sheet has its aspect ratio, and 512 to 1024 pixels on its longer side.
        picture: (height, width, channels) float in [0, 1], or None for a plain background.
    """

    def __init__(self, extent: Extent, picture: Tensor | None = None) -> None:
        longer = max(extent.width, extent.height)
        scale = min(max(longer, SHORTEST_PX), LONGEST_PX) / longer
        self.extent = Extent(max(round(extent.width * scale), 1), max(round(extent.height * scale), 1))
        size = (self.extent.width, self.extent.height)
        self._image = Image.new("RGB", size, BACKGROUND) if picture is None else _as_image(picture).resize(size)
        size_of_text = max(self.extent.width, self.extent.height) / 36
        self._font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size_of_text))
        self._footer: list[str] = []

    def tint(self, weights: Tensor, color: Color, opacity: float = 0.45) -> None:
        """Colours the picture in proportion to `weights`, (height, width) of the sheet's own size, in [0, 1]."""
        mask = Image.fromarray((weights * opacity * 255).round().to(torch.uint8).numpy())
        self._image.paste(color, mask=mask)

    def outline(self, box: Box, color: Color, is_dashed: bool = False) -> None:
        """Draws the border of a box."""
        x0, y0, x1, y1 = self._pixels(box)
        stroke = self._stroke
        draw = ImageDraw.Draw(self._image)
        if not is_dashed:
            draw.rectangle((x0, y0, x1, y1), outline=color, width=stroke)
            return
        dash = 4 * stroke
        for x in range(x0, x1, 2 * dash):
            for y in (y0, y1):
                draw.line((x, y, min(x + dash, x1), y), color, stroke)
        for y in range(y0, y1, 2 * dash):
            for x in (x0, x1):
                draw.line((x, y, x, min(y + dash, y1)), color, stroke)

    def label(self, number: str, text: str, *, x: float, y: float, color: Color) -> None:
        """Writes `number` and `text` in a filled field with its lower left corner at (x, y), moved into the picture."""
        shown = " ".join(part for part in (number, drawable(text, self._font)) if part)
        left, top, right, bottom = self._font.getbbox(shown)
        margin = self._stroke * 2
        width, height = right - left + 2 * margin, bottom - top + 2 * margin
        corner_x = round(min(max(x * self.extent.width, 0), max(self.extent.width - width, 0)))
        corner_y = round(min(max(y * self.extent.height - height, 0), max(self.extent.height - height, 0)))
        draw = ImageDraw.Draw(self._image)
        draw.rectangle((corner_x, corner_y, corner_x + width, corner_y + height), fill=color)
        is_light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 110
        ink = (0, 0, 0) if is_light else (255, 255, 255)
        draw.text((corner_x + margin - left, corner_y + margin - top), shown, fill=ink, font=self._font)

    def footer(self, lines: Sequence[str]) -> None:
        """Writes text below the picture, wrapped to its width."""
        for shown in filter(None, (drawable(line, self._font) for line in lines)):
            columns = max(int(0.95 * self.extent.width * len(shown) / self._font.getlength(shown)), 8)
            self._footer += textwrap.wrap(shown, columns, subsequent_indent="  ")

    def as_image(self) -> Tensor:
        """Returns (1, height, width, 3) float32 in [0, 1]; the footer makes it higher than the sheet."""
        image = self._image
        if self._footer:
            line_height = round(sum(self._font.getmetrics()) * 1.15)
            image = Image.new(
                "RGB", (image.width, image.height + line_height * len(self._footer) + line_height // 2), (0, 0, 0)
            )
            image.paste(self._image)
            draw = ImageDraw.Draw(image)
            for row, line in enumerate(self._footer):
                top = self._image.height + line_height // 4 + row * line_height
                draw.text((line_height // 4, top), line, fill=(235, 235, 235), font=self._font)
        return torch.as_tensor(np.array(image)).float()[None] / 255

    @property
    def _stroke(self) -> int:
        return max(round(max(self.extent.width, self.extent.height) / 340), 1)

    def _pixels(self, box: Box) -> tuple[int, int, int, int]:
        """Returns the corners of the box in pixels; those outside the picture are moved onto its border."""
        shown = box.scaled(self.extent.width, self.extent.height)
        x0, x1 = (round(min(max(x, 0), self.extent.width - 1)) for x in (shown.x0, shown.x1))
        y0, y1 = (round(min(max(y, 0), self.extent.height - 1)) for y in (shown.y0, shown.y1))
        return x0, y0, max(x0, x1), max(y0, y1)


def drawable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text in characters that the font has; empty if it has none of them.

    The font that comes with Pillow has few letters but the English ones. Others lose their accents if that helps,
    and each run of what remains becomes an ellipsis: a name in another script is told by the person's number instead.
    """
    shown = ""
    for character in text:
        plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        if _has(font, character):
            shown += character
        elif plain and all(_has(font, c) for c in plain):
            shown += plain
        elif not shown.endswith("…"):
            shown += "…"
    return shown if shown.strip("… ") else ""


def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Returns whether the font draws the character as anything other than its sign for missing characters."""
    if character.isspace():
        return True
    glyph, missing = font.getmask(character), font.getmask("\uffff")
    return (glyph.size, bytes(cast(Iterable[int], glyph))) != (missing.size, bytes(cast(Iterable[int], missing)))


def _as_image(picture: Tensor) -> Image.Image:
    rgb = picture[..., :3].expand(-1, -1, 3)  # grey is repeated
    return Image.fromarray(rgb.float().nan_to_num().clamp(0, 1).mul(255).round().byte().cpu().numpy())
