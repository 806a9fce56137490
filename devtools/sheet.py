"""A contact sheet: rows of pictures with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL_PX, GAP_PX, TITLE_PX, CAPTION_PX = 240, 8, 34, 26


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet, and the caption below it."""

    caption: str
    picture: Image.Image


def sheet(rows: Mapping[str, Sequence[Cell]]) -> Image.Image:
    """Draws one row for each title. Small pictures are enlarged, and large ones reduced.

    Args:
        rows: title -> pictures, at least one row with one picture.
    """
    step, height = CELL_PX + GAP_PX, TITLE_PX + CELL_PX + CAPTION_PX
    canvas = Image.new("RGB", (step * max(map(len, rows.values())) + GAP_PX, height * len(rows) + GAP_PX), "white")
    draw = ImageDraw.Draw(canvas)
    title_font, caption_font = ImageFont.load_default(20), ImageFont.load_default(15)
    for row, (title, cells) in enumerate(rows.items()):
        top = row * height
        draw.text((GAP_PX, top + 8), title, fill="black", font=title_font)
        for column, cell in enumerate(cells):
            left = GAP_PX + column * step
            picture = cell.picture.convert("RGB")
            scale = CELL_PX / max(picture.size)
            size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
            canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, top + TITLE_PX))
            caption = cell.caption
            while draw.textlength(caption, font=caption_font) > CELL_PX:
                caption = caption[:-1]
            draw.text((left, top + TITLE_PX + CELL_PX + 3), caption, fill="black", font=caption_font)
    return canvas
