"""Pastes restored faces back on one canvas, each within its mask. Nothing else changes by a single bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInputError, ShapeMismatchError
from ..geometry import Box
from ..shapes import Extent, as_masks
from .adain import adain, masked_moments
from .crops import lay_crop, take_crop
from .face_crops import FaceCrop, check_images


def paste_crops(
    images: Tensor, crops: Sequence[FaceCrop], restored: Tensor, *, masks: Tensor, are_colors_matched: bool = False
) -> tuple[Tensor, Tensor]:
    """Pastes crops that another node restored back into their pictures.

    Args:
        images: (num_pictures, height, width, 3 or 4), the pictures that were cropped.
        crops: the crops as they were taken; without any, nothing changes.
        restored: (num_faces, any size, the same, 3).
        masks: the pasted areas, (num_faces, any size, the same).
        are_colors_matched: whether to match each crop to the colours of the original, measured outside its mask.
    Returns:
        As `paste_faces`.
    Raises:
        ShapeMismatchError: the numbers do not agree, or the crops are not square.
        InvalidInputError: a crop or a mask is not finite, or a mask is not in [0, 1].
    """
    check_images(images)
    if not crops:
        return paste_faces(images, (), are_colors_matched=are_colors_matched)
    masks = as_masks(masks)
    if not (len(crops) == len(restored) == len(masks)):
        raise ShapeMismatchError(
            f"{len(crops)} faces were cropped, but there are {len(restored)} crops and {len(masks)} masks to paste; "
            f"{_wrong_input(len(restored), len(masks), len(crops))}"
        )
    if restored.shape[1] != restored.shape[2] or masks.shape[1] != masks.shape[2]:
        raise ShapeMismatchError(
            f"the crops are {tuple(restored.shape)} and their masks {tuple(masks.shape)}; both must stay square"
        )
    if not restored.isfinite().all():
        raise InvalidInputError(
            "some crops contain values that are not finite (NaN), because the model or the VAE overflowed; run it in "
            "float32"
        )
    if max(entry.picture_index for entry in crops) >= images.shape[0]:
        raise ShapeMismatchError(
            f"the crops come from more pictures than the {images.shape[0]} that are connected; connect the pictures "
            "that were cropped"
        )
    restored, masks = restored[..., :3].cpu().float().clamp(0, 1), masks.cpu().float()
    returned = [
        replace(entry, crop=crop, paste_mask=mask) for entry, crop, mask in zip(crops, restored, masks, strict=True)
    ]
    return paste_faces(images, returned, are_colors_matched=are_colors_matched)


def paste_faces(
    images: Tensor, faces: Sequence[FaceCrop], *, are_colors_matched: bool = False
) -> tuple[Tensor, Tensor]:
    """Pastes restored faces into the pictures of a batch, each within its paste mask.

    Args:
        images: (num_pictures, height, width, channels) in [0, 1]; channels beyond the third (alpha) are kept.
        faces: with restored crops.
        are_colors_matched: whether to match each crop to the colours of the original, measured outside its mask.
    Returns:
        The new pictures, and the mask of what changed in each, (num_pictures, height, width) float32. Where it is 0,
        the pixels are bit-identical to those of `images`.
    """
    pasted: list[Tensor] = []
    changed: list[Tensor] = []
    for index, picture in enumerate(images):
        own = [face for face in faces if face.picture_index == index]
        if are_colors_matched:
            own = [_recolored(face, picture) for face in own]
        result, mask = lay_faces(picture, own)
        pasted.append(result)
        changed.append(mask)
    return torch.stack(pasted), torch.stack(changed)


def lay_faces(picture: Tensor, faces: Sequence[FaceCrop]) -> tuple[Tensor, Tensor]:
    """Pastes restored faces into one picture, as `paste_faces` does for each picture.

    Where masks overlap, the strongest of them determines how much a pixel changes, and the faces share it in proportion
    to the squares of their weights. The order of the faces does not matter.

    Args:
        picture: (height, width, channels) in [0, 1]; channels beyond the third (alpha) are kept.
        faces: the faces of this picture, with restored crops.
    Returns:
        The new picture, and the mask of what changed, (height, width) float32. Where it is 0, the pixels are
        bit-identical to those of `picture`.
    """
    extent = Extent(picture.shape[1], picture.shape[0])
    laid: list[Laid] = []
    for face in faces:
        colors, box = lay_crop(face.crop, face.square, extent)
        weight, _ = lay_crop(face.paste_mask[..., None], face.square, extent, mode="bilinear")
        laid.append((colors, weight[..., 0], box))
    weights = [_shared(laid, number) for number in range(len(laid))]
    pasted = picture.clone()
    changed = torch.zeros(extent.height, extent.width)
    for (colors, _, box), weight in zip(laid, weights, strict=True):
        rows, columns = _slices(box)
        before, after = picture[rows, columns, :3], pasted[rows, columns, :3]
        difference = weight[..., None].to(picture) * (colors.to(picture) - before.nan_to_num(0, 0, 0))
        # The first face to touch a pixel that is not finite replaces it.
        after = torch.where((weight[..., None] > 0).to(picture.device), after.nan_to_num(0, 0, 0) + difference, after)
        pasted[rows, columns, :3] = after
        changed[rows, columns] += weight.cpu()
    return pasted, changed.clamp(max=1)


def match_colors(restored: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """Matches a restored crop to the colours of the original, measured outside the mask, where both show the same.

    Args:
        restored, original: (size, size, 3) in [0, 1].
        mask: M in [0, 1], (size, size).
    Returns:
        The shape of `restored`; unchanged if the mask leaves fewer than two cells.
    """
    outside = 1 - mask.flatten()[:, None]
    cells, wanted = restored.flatten(0, 1).float(), original.flatten(0, 1).to(restored)
    matched = adain(cells, masked_moments(cells, outside), masked_moments(wanted, outside))
    return matched.clamp(0, 1).view(restored.shape)


def _recolored(face: FaceCrop, picture: Tensor) -> FaceCrop:
    """Returns a restored face with the colours of its picture."""
    size = face.crop.shape[0]
    original = take_crop(picture[..., :3].cpu(), replace(face.square, size_px=size))
    mask = functional.interpolate(face.paste_mask[None, None], size=(size, size), mode="bilinear", antialias=True)
    return replace(face, crop=match_colors(face.crop, original, mask[0, 0]))


Laid = tuple[Tensor, Tensor, Box]
"""Colours (height, width, 3) and weights (height, width) on the pixels of a box."""


def _shared(laid: Sequence[Laid], number: int) -> Tensor:
    """Returns a face's weights after sharing with overlapping faces: `max_j w_j * w_i^2 / sum_j w_j^2`."""
    own, box = laid[number][1:]
    largest, squares = own, own.square()
    for other, (_, weight, other_box) in enumerate(laid):
        shared = box.intersection(other_box)
        if other == number or shared.area == 0:
            continue
        here, there = _slices(shared, box), _slices(shared, other_box)
        largest, squares = largest.clone(), squares.clone()
        largest[here] = torch.maximum(largest[here], weight[there])
        squares[here] += weight[there].square()
    share = own.square() / squares.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(squares == own.square(), own, largest * share)


def _slices(box: Box, origin: Box = Box(0, 0, 0, 0)) -> tuple[slice, slice]:  # noqa: B008 (frozen)
    """Returns the rows and columns of a box within an array that starts at `origin`."""
    return (
        slice(int(box.y0 - origin.y0), int(box.y1 - origin.y0)),
        slice(int(box.x0 - origin.x0), int(box.x1 - origin.x0)),
    )


def _wrong_input(num_crops: int, num_masks: int, num_faces: int) -> str:
    """Returns which input of Paste Faces does not hold what belongs there, and what does."""
    wrong: list[str] = []
    if num_crops != num_faces:
        wrong.append("to `crops`, connect all restored crops, in the order in which Crop Faces gave them")
    if num_masks != num_faces:
        wrong.append("to `masks`, connect the masks of Crop Faces, one per crop")
    return ", and ".join(wrong)
