"""The regions of identities: boxes and masks, kept as fractions of the picture until the size of a grid is known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInputError
from ..geometry import Box
from ..packages import OPENCV, importing
from ..shapes import Extent

WHOLE_PICTURE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a picture, weighted 0-1, without a resolution. `from_box` and `from_mask` create it.

    Attributes:
        box: fractions of the picture, within 0-1; the region is 0 outside it.
        feather: width of the soft edge inside a solid box, horizontally and vertically, as fractions of the picture.
        mask: (height, width) float32 weights, spread evenly over `box`; None is a solid box.
    """

    box: Box
    feather: tuple[float, float] = (0.0, 0.0)
    mask: Tensor | None = None

    @classmethod
    def from_box(cls, box: Box, *, grow: float = 0.0, feather: float = 0.0) -> Region | None:
        """Makes a region from a solid box with a soft edge.

        Args:
            box: fractions of the picture; it is clipped to the picture.
            grow: extension on every side, as a fraction of the box's own width and height.
            feather: width of the soft edge, inside the grown box, as a fraction 0-0.5 of its width and height.
        Returns:
            The region; None if nothing of it is inside the picture.
        Raises:
            InvalidInputError: grow or feather are out of range.
        """
        _check_edges(grow, feather)
        grown = box.grown(grow)
        visible = grown.intersection(WHOLE_PICTURE)
        if visible.area <= 0:
            return None
        return cls(visible, (feather * grown.width, feather * grown.height))

    @classmethod
    def from_mask(cls, mask: Tensor, *, grow: float = 0.0, feather: float = 0.0) -> Region | None:
        """Makes a region from a mask over the whole picture.

        Without grow and feather, the grey values of the mask are the weights. With either, its outline (at half of its
        largest value) is moved outwards by `grow` and softened inwards over `feather`.

        Args:
            mask: (height, width), values 0-1, of any size.
            grow: distance by which the outline moves outwards, as a fraction of the mask's mean side.
            feather: width of the soft edge inside the grown outline, as a fraction 0-0.5 of the same.
        Returns:
            The region; None if the mask is empty.
        Raises:
            InvalidInputError: the mask is not two-dimensional, or grow or feather are out of range.
        """
        _check_edges(grow, feather)
        if mask.ndim != 2 or mask.numel() == 0:
            raise InvalidInputError(
                f"a region's mask must be (height, width), but it is {tuple(mask.shape)}; give one mask per person"
            )
        weights = mask.detach().to("cpu", torch.float32).nan_to_num().clamp(0, 1)
        if not weights.any():
            return None
        if grow or feather:
            weights = _reshaped_edge(weights, grow, feather)
        rows, columns = weights.any(1).nonzero(), weights.any(0).nonzero()
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        height, width = weights.shape
        box = Box(left / width, top / height, right / width, bottom / height)
        return cls(box, mask=weights[top:bottom, left:right].clone())

    def rasterise(self, extent: Extent) -> Tensor:
        """Returns the region on a grid. Every cell holds the region's mean over that cell.

        Args:
            extent: size of the grid: a picture, a latent, or the tokens of an attention layer.
        Returns:
            (height, width) float32 in [0, 1]; exactly 0 in cells outside, exactly 1 in cells deep inside.
        """
        box = self.box
        if self.mask is None:
            across = _edge_profile(box.x0, box.x1, feather=self.feather[0], num_cells=extent.width)
            down = _edge_profile(box.y0, box.y1, feather=self.feather[1], num_cells=extent.height)
            means = torch.as_tensor(np.outer(down, across))
        else:
            across = _row_means(self.mask.double(), box.x0, box.x1, num_cells=extent.width)
            means = _row_means(across.T, box.y0, box.y1, num_cells=extent.height).T.contiguous()
        # An edge that rounding moves one ulp beyond the edge of a cell must not touch the next cell.
        return means.round(decimals=9).clamp(0, 1).float()


def share_overlap(regions: Tensor) -> Tensor:
    """Limits the sum of weights in every cell to 1. Regions that overlap share the cell in proportion.

    Args:
        regions: (num_regions, height, width) in [0, 1].
    Returns:
        The same shape; unchanged wherever the sum is at most 1. Permuting the regions permutes the result bit for bit.
    """
    total = regions.sort(dim=0).values.sum(dim=0)  # sorted, so that the rounding does not depend on the order
    return regions / total.clamp(min=1.0)


def _check_edges(grow: float, feather: float) -> None:
    if not 0 <= grow <= 10:
        raise InvalidInputError(f"grow is {grow}; it is a fraction of the region's own size, from 0 to 10")
    if not 0 <= feather <= 0.5:
        raise InvalidInputError(f"feather is {feather}; it is a fraction of the region's own size, from 0 to 0.5")


def _edge_profile(start: float, end: float, *, feather: float, num_cells: int) -> np.ndarray:
    """Returns the cell means, (num_cells,), of a bar from `start` to `end` (fractions) with edges `feather` wide.

    Sides at the picture's border are not softened, so a box that fills the picture is 1 everywhere.
    """
    rise = feather if start > 0 else 0.0
    fall = feather if end < 1 else 0.0
    knots = [
        (start * num_cells, 0.0),
        ((start + rise) * num_cells, 1.0),
        ((end - fall) * num_cells, 1.0),
        (end * num_cells, 0.0),
    ]
    edges = np.arange(num_cells + 1, dtype=np.float64)
    means = np.zeros(num_cells)
    for (left, low), (right, high) in pairwise(knots):
        if right > left:  # the trapezium rule is exact on each linear piece
            inside = edges.clip(left, right)
            heights = low + (inside - left) / (right - left) * (high - low)
            means += np.diff(inside) * (heights[1:] + heights[:-1]) / 2
    return means


def _row_means(mask: Tensor, start: float, end: float, *, num_cells: int) -> Tensor:
    """Returns the cell means of rows of values, (rows, columns) spread evenly from `start` to `end`; (rows, num_cells).

    The running integral is linear within a column of the mask, so its differences between cell edges are exact.
    """
    num_columns = mask.shape[1]
    edges = torch.arange(num_cells + 1, dtype=torch.float64) / num_cells
    position = ((edges - start) / (end - start) * num_columns).clamp(0, num_columns)
    column = position.long().clamp(max=num_columns - 1)
    integral = functional.pad(mask.cumsum(1), (1, 0))
    at_edges = torch.lerp(integral[:, column], integral[:, column + 1], position - column)
    columns_per_cell = num_columns / ((end - start) * num_cells)
    return at_edges.diff(dim=1) / columns_per_cell


def _reshaped_edge(weights: Tensor, grow: float, feather: float) -> Tensor:
    """Redraws the mask from the distance to its outline; (height, width)."""
    level = weights.max()
    inside: np.ndarray = (weights >= level / 2).numpy().astype(np.uint8)
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    mean_side = float(columns[-1] - columns[0] + rows[-1] - rows[0]) / 2 + 1
    grow_px, feather_px = grow * mean_side, feather * mean_side * (1 + 2 * grow)
    depth = _signed_distance(inside) + grow_px  # pixels inside the grown outline
    soft = (depth / feather_px).clip(0, 1) if feather_px else depth > 0
    return torch.as_tensor(soft.astype(np.float32)) * level


def _signed_distance(inside: np.ndarray) -> np.ndarray:
    """Distance in pixels from pixel centres to the outline, positive inside; the picture's border is not part of it."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    with importing(OPENCV):
        import cv2
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_inside = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = np.where(inside, to_outside - 0.5, 0.5 - to_inside)  # the outline is between the centres of two pixels
    return distance.astype(np.float64)
