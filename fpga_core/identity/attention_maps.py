"""Draws which identity was active where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..faces.labels import Sheet, person_color
from ..shapes import Extent


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The activity of one person in one attention layer.

    Attributes:
        picture: index of the picture in its batch.
        number: the person's number in the cast, from 1.
        name: the person's name.
        activity: (height, width) on the layer's grid: what the identity added, as a fraction of what the text added.
    """

    picture: int
    number: int
    name: str
    activity: Tensor


def draw_attention(maps: Sequence[AttentionMap], extent: Extent) -> Tensor:
    """Draws one picture per map, in the person's colour. All share one scale, which the footer names.

    Args:
        maps: of any number of pictures and people.
        extent: size of the generated picture, in pixels.
    Returns:
        (num_maps, height, width, 3) float32 in [0, 1]; 512 to 1024 pixels on the longer side, plus the footer.
    """
    strongest = max(float(shown.activity.max()) for shown in maps)
    return torch.cat([_draw(shown, extent, strongest) for shown in maps])


def _draw(shown: AttentionMap, extent: Extent, strongest: float) -> Tensor:
    sheet, color = Sheet(extent), person_color(shown.number - 1)
    size = (sheet.extent.height, sheet.extent.width)
    weights = torch.nn.functional.interpolate(shown.activity[None, None] / (strongest or 1), size)[0, 0]
    sheet.tint(weights, color, opacity=1.0)
    sheet.label(f"#{shown.number}", shown.name, x=0.0, y=0.0, color=color)
    sheet.footer([f"picture {shown.picture + 1}; brightest: {strongest:.0%} of what the text adds"])
    return sheet.as_image()
