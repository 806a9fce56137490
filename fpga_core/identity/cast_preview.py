"""Draws a cast: who is where, who has no place, and why."""

from __future__ import annotations

from torch import Tensor

from ..faces.labels import NOBODY_COLOR, Sheet, person_color
from .casting import Casting


def draw_casting(casting: Casting, picture: Tensor | None = None) -> Tensor:
    """Draws the regions of a cast with colours, numbers and names, and the notes below.

    Args:
        casting: the cast and how its people were placed.
        picture: (height, width, channels) float in [0, 1] to draw on; None is a plain background.
    Returns:
        (1, height, width, 3) float32 in [0, 1]; 512 to 1024 pixels on the canvas's longer side, plus the notes.
    """
    sheet = Sheet(casting.cast.extent, picture)
    numbers = casting.cast.numbers
    members = list(zip(numbers, casting.cast.members, strict=True))
    for number, weights in zip(numbers, casting.cast.rasterise(sheet.extent), strict=True):
        sheet.tint(weights, person_color(number - 1))
    for place in casting.unused:
        sheet.outline(place.box, NOBODY_COLOR, is_dashed=True)
        sheet.label("", place.label, x=place.box.x0, y=place.box.y0, color=NOBODY_COLOR)
    for number, member in members:
        if member.face_box:
            sheet.outline(member.face_box, person_color(number - 1))
    for index, (number, member) in enumerate(members):  # last, so that no outline crosses a name
        x, y = (member.region.box.x0, member.region.box.y0) if member.region else (0.0, index / len(members))
        sheet.label(f"#{number}", member.identity.name, x=x, y=y, color=person_color(number - 1))
    sheet.footer(casting.notes)
    return sheet.as_image()
