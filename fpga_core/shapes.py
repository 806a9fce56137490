"""Sizes of pictures, latents and token grids."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from .errors import InvalidInputError, ShapeMismatchError

PIXELS_PER_LATENT = 8
"""The pixels of a picture that become one latent pixel, in width and in height."""

MASK_OVERSHOOT = 0.5
"""How far outside of 0 to 1 a mask may be before it is taken for one of another range; resampling overshoots less."""

ASPECT_TOLERANCE = 0.02
"""Aspect ratios that differ by less than this do so because sizes were rounded to whole pixels or to multiples of 8."""


@dataclass(frozen=True)
class Extent:
    """Width and height of a picture, a latent or a token grid, in its own cells."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def num_cells(self) -> int:
        return self.width * self.height

    def downscaled(self, factor: int) -> Extent:
        """Returns the extent after `factor`-fold downsampling by stride-2 convolutions (odd sizes round up)."""
        return Extent(-(-self.width // factor), -(-self.height // factor))

    def has_aspect_of(self, other: Extent) -> bool:
        """Returns whether the aspect ratios agree, within `ASPECT_TOLERANCE`."""
        return abs(self.width * other.height / (self.height * other.width) - 1) <= ASPECT_TOLERANCE


def token_grid(latent: Extent, num_tokens: int) -> Extent:
    """Returns the grid of an attention layer that sees `num_tokens` tokens of a latent.

    A UNet level halves the latent with stride-2 convolutions, which round odd sizes up, so the grid is derived level by
    level and not guessed from a square root.

    Args:
        latent: size of the latent, in latent pixels.
        num_tokens: number of tokens (queries) of the layer.
    Returns:
        The grid, with `width * height == num_tokens`.
    Raises:
        ShapeMismatchError: no level of the latent has that many tokens.
    """
    grid = latent
    while grid.num_cells > num_tokens and grid.num_cells > 1:
        grid = grid.downscaled(2)
    if grid.num_cells != num_tokens:
        raise ShapeMismatchError(
            f"an attention layer has {num_tokens} tokens, which fits no level of a {latent} latent; a patch that "
            "merges or drops tokens (ToMe, HyperTile) is probably active on this model: bypass it"
        )
    return grid


def cell_means(maps: Tensor, grid: Extent) -> Tensor:
    """Resamples masks or weights to a grid. Every cell holds the mean of the pixels that it covers.

    Args:
        maps: (..., height, width), with one or two dimensions before the last two.
        grid: size of the grid.
    Returns:
        (..., grid.height, grid.width); `maps` itself if it has that size already.
    """
    size = (grid.height, grid.width)
    return maps if maps.shape[-2:] == size else functional.adaptive_avg_pool2d(maps, size)


def as_masks(masks: Tensor) -> Tensor:
    """Returns the value of a MASK socket as a batch, the one check of masks.

    Args:
        masks: (num_masks, height, width) in [0, 1]; (height, width) and (num_masks, 1, height, width) are accepted too.
            Resampling can leave values a little outside; they are clamped.
    Returns:
        (num_masks, height, width) in [0, 1].
    Raises:
        ShapeMismatchError: it is none of these, or empty.
        InvalidInputError: a value is not finite, or so far outside that the mask has another range, such as 0 to 255.
    """
    batch = masks[None] if masks.ndim == 2 else masks.squeeze(1) if masks.ndim == 4 else masks
    if batch.ndim != 3 or 0 in batch.shape:
        raise ShapeMismatchError(
            f"the mask has the shape {tuple(masks.shape)}; connect a MASK of the shape (number of masks, height, width)"
        )
    batch = batch if batch.is_floating_point() else batch.float()
    if not batch.isfinite().all():
        raise InvalidInputError(
            "use another mask: this one holds values that are not numbers (NaN or infinity); the node that made it "
            "probably divided by zero"
        )
    least, most = float(batch.min()), float(batch.max())
    if least < -MASK_OVERSHOOT or most > 1 + MASK_OVERSHOOT:
        raise InvalidInputError(
            f"divide the mask by its largest value, or use another: masks are 0 to 1, and this one is {least:g} to "
            f"{most:g}"
        )
    return batch.clamp(0, 1)
