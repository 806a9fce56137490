"""Clone Face Tuning: a picture beside its own copy, and the loss that makes an identity act alike on both faces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InvalidInputError, ShapeMismatchError
from ...shapes import PIXELS_PER_LATENT, Extent
from ..data.batch import TrainingBatch


@dataclass(frozen=True, kw_only=True)
class CloneFaceTuning:
    """The weight of Clone Face Tuning, and how it compares faces.

    Attributes:
        weight: weight of the loss, lambda in Eq. 4.
        crop_cells: both crops are resampled to this many cells in width and height.
        gaussian_deviation: deviation of the kernel G, as a fraction of half a crop.
    Raises:
        InvalidInputError: a value is out of range.
    Source: FPGA section 3.1, which does not give the width of G.
    """

    weight: float = 0.2
    crop_cells: int = 32
    gaussian_deviation: float = 0.5

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and self.crop_cells >= 1 and self.gaussian_deviation > 0):
            raise InvalidInputError(
                f"Clone Face Tuning has the weight {self.weight:g}, {self.crop_cells} cells in a crop and the "
                f"deviation {self.gaussian_deviation:g}; the weight must be at least 0, the cells at least 1, and the "
                "deviation above 0"
            )


def splice(batch: TrainingBatch, stride: int) -> TrainingBatch:
    """Places each picture beside its copy. Latents, drawings and masks become twice as wide; text and identity stay.

    The copy begins at a multiple of the network's stride, so that every level of the network sees both halves in the
    same phase. Columns beyond that are cut off on the right of both halves.

    Args:
        batch: pictures of any size.
        stride: latent pixels that become one in the network's lowest level.
    Returns:
        A batch of the same length, `2 floor(width / stride) stride` latent pixels wide.
    Raises:
        InvalidInputError: the pictures are narrower than the stride.
    Source: FPGA section 3.1, "duplicate the identity image and splice it to the original image". Latents are spliced
        instead of pictures. Except at the seam, an autoencoder gives the same.
    """
    width = batch.extent.width // stride * stride
    if width == 0:
        raise InvalidInputError(
            f"pictures of {batch.extent} latent pixels are too small for Clone Face Tuning, which needs a width of "
            f"{stride} ({stride * PIXELS_PER_LATENT} px); use larger pictures, or set clone_every to 0"
        )

    def twice(tensor: Tensor, columns: int) -> Tensor:
        return torch.cat([tensor[..., :columns]] * 2, dim=-1)

    return replace(
        batch,
        latents=twice(batch.latents, width),
        skeleton=twice(batch.skeleton, width * PIXELS_PER_LATENT),
        landmarks=twice(batch.landmarks, width * PIXELS_PER_LATENT),
        face_masks=twice(batch.face_masks, width),
    )


@dataclass(eq=False)
class RecordedFeature:
    """The cross-attention features F_CA of Eq. 2: of one layer, text and identity together, before `to_out`.

    Attributes:
        features: (batch, queries, inner_dim); None until the network has run.
        grid: width and height of the queries.
    """

    features: Tensor | None = None
    grid: Extent = Extent(0, 0)


@dataclass(frozen=True, eq=False)
class CloneFaceLoss:
    """L_cfa, and the size of the features that it compares.

    Attributes:
        loss: scalar; 0 if no picture shows a face.
        feature_norm: root mean square of the weighted features. Features that vanish minimise the loss too: they
            do if this falls together with it.
    """

    loss: Tensor
    feature_norm: Tensor


def clone_face_loss(features: Tensor, grid: Extent, *, masks: Tensor, tuning: CloneFaceTuning) -> CloneFaceLoss:
    """Computes `L_cfa = |(Crop(F, M_1) - Crop(F, M_2)) G|^2`, a mean over cells, channels and pictures with a face.

    M_1 and M_2 are the face regions of the two halves. The bounding box of a region is cropped from the features and
    resampled bilinearly to `crop_cells` squared, so that faces of any size share one batch and one kernel `G = exp(-r^2
    / (2 deviation^2))`. r is measured from the middle of the crop and is 1 at its sides.

    Args:
        features: F, cross-attention features of spliced pictures, text and identity together, (batch, queries, dim).
        grid: width and height of the queries.
        masks: face regions of the spliced pictures, (batch, 1, height, width) latent pixels, equal in both halves.
        tuning: crops and kernel.
    Returns:
        The loss, float32, and the features' norm.
    Raises:
        ShapeMismatchError: the number of features is not that of the grid's cells, or the grid does not have two equal
            halves.
    Source: FPGA Eq. 2, computed as a mean and not as a sum, as is common for Eq. 3.
    """
    if features.shape[1] != grid.num_cells or grid.width % 2 or masks.shape[-1] % 2:
        raise ShapeMismatchError(
            f"{features.shape[1]} features on a {grid} grid and masks of {tuple(masks.shape)} do not belong to spliced "
            "pictures; a patch that merges or drops tokens is probably active on this model: bypass it"
        )
    maps = features.float().transpose(1, 2).reshape(len(features), -1, grid.height, grid.width)
    boxes, has_face = face_boxes(masks[..., : masks.shape[-1] // 2])
    kernel = gaussian_kernel(tuning.crop_cells, tuning.gaussian_deviation).to(maps)
    first, second = (kernel * _crop(half, boxes, tuning.crop_cells) for half in maps.chunk(2, dim=-1))
    share = has_face / has_face.sum().clamp(min=1)
    loss = ((first - second).square().mean(dim=(1, 2, 3)) * share).sum()
    squares = (first.square() + second.square()).mean(dim=(1, 2, 3)) / 2
    return CloneFaceLoss(loss, (squares * share).sum().sqrt())


def face_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the bounding boxes of face regions, over the cells with at least half of the region's largest coverage.

    Args:
        masks: coverage in [0, 1], (batch, 1, height, width).
    Returns:
        Left, top, right and bottom as fractions of width and height, (batch, 4), the whole picture if there is no face;
        and whether there is a face, (batch,), 1 or 0.
    """
    is_face = (masks > 0) & (masks >= masks.amax(dim=(2, 3), keepdim=True) / 2)
    sides: list[Tensor] = []
    for axis in (2, 3):
        covered = is_face.any(dim=axis)[:, 0].float()  # (batch, width), then (batch, height)
        first = covered.argmax(dim=1)
        last = covered.shape[1] - covered.flip(1).argmax(dim=1)
        sides.append(torch.stack([first, last], dim=1) / covered.shape[1])
    boxes = torch.stack([sides[0][:, 0], sides[1][:, 0], sides[0][:, 1], sides[1][:, 1]], dim=1)
    return boxes, is_face.any(dim=3).any(dim=2)[:, 0].float()


def gaussian_kernel(num_cells: int, deviation: float) -> Tensor:
    """Returns G on a square of cells, (num_cells, num_cells), 1 in the middle; `deviation` refers to half of it."""
    places = (torch.arange(num_cells) + 0.5) / num_cells * 2 - 1
    profile = (-(places**2) / (2 * deviation**2)).exp()
    return profile[:, None] * profile


def _crop(maps: Tensor, boxes: Tensor, num_cells: int) -> Tensor:
    """Crops (batch, dim, height, width) with boxes (batch, 4) to (batch, dim, num_cells, num_cells), bilinearly."""
    places = (torch.arange(num_cells, device=maps.device) + 0.5) / num_cells
    left, top, right, bottom = (side[:, None].to(maps) for side in boxes.unbind(dim=1))
    across, down = left + (right - left) * places, top + (bottom - top) * places  # (batch, num_cells)
    points = torch.stack(
        [across[:, None, :].expand(-1, num_cells, -1), down[:, :, None].expand(-1, -1, num_cells)], dim=-1
    )
    return functional.grid_sample(maps, points * 2 - 1, padding_mode="border", align_corners=False)
