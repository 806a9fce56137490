"""The faces of a batch of pictures that are to be restored: chosen, cropped, masked, and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from ..errors import InvalidInputError, ShapeMismatchError
from ..faces.detection import as_pictures, detect_faces
from ..faces.face import Face, FaceAnalyzer, PictureFaces
from ..geometry import Box
from ..shapes import Extent, as_masks
from .crops import CropSquare, face_square, take_crop
from .masks import MAX_AREA, bounded_mask, draw_hull, face_hull, growth_within, hull_area, soften_mask
from .paste import RestoredFace, match_colors, paste_faces

FaceParser = Callable[[Tensor], Tensor]
"""Crops, (num_faces, size, size, 3) in [0, 1], to masks of the face in each, (num_faces, size, size), 0 or 1."""


@dataclass(frozen=True)
class CropSettings:
    """How faces are cropped and masked.

    Attributes:
        size_px: side of the crops: the model's native size.
        size_limit_px: only faces whose longer side is shorter; 0 takes all.
        margin: around the face's box on every side, as a fraction of its longer side.
        is_upright: turn tilted faces upright.
        mask_grow: by how much masks are dilated, as a fraction of the face's longer side.
        mask_feather: width of their soft edge beyond that, as the same fraction.
    """

    size_px: int = 512
    size_limit_px: float = 100.0
    margin: float = 0.5
    is_upright: bool = False
    mask_grow: float = 0.04
    mask_feather: float = 0.08

    def __post_init__(self) -> None:
        if self.size_px < 64 or self.size_px % 8:
            raise InvalidInputError(f"the crop size is {self.size_px} px; it must be a multiple of 8, at least 64")


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """One face and its crop's place.

    Attributes:
        picture: index of its picture in the batch.
        number: of the face in its picture, from 1, as `faces` lists it.
        face: in pixels of the picture.
        square: the crop.
        max_area_px: limit of the pasted mask's area, pixels of the picture; None where the user gave the mask.
    """

    picture: int
    number: int
    face: Face
    square: CropSquare
    max_area_px: float | None

    @property
    def label(self) -> str:
        return f"picture {self.picture + 1}, face {self.number}"

    @property
    def face_in_crop(self) -> Face:
        """The face in pixels of the crop; its box is the smallest upright one around the turned box."""
        box, landmarks = self.face.box, self.face.landmarks
        corners = torch.cartesian_prod(torch.tensor([box.x0, box.x1]), torch.tensor([box.y0, box.y1])).numpy()
        turned = self.square.to_crop(corners)
        return replace(
            self.face,
            box=Box(*turned.min(axis=0), *turned.max(axis=0)),
            landmarks=None if landmarks is None else self.square.to_crop(landmarks),
        )


def faces_in_crops(places: Sequence[FaceCrop], crops: Tensor) -> tuple[PictureFaces, ...]:
    """The face of each crop, in its pixels; an empty crop's worth where there is none, as in `or_blank`.

    Args:
        places: of the crops.
        crops: (num_faces, size, size, 3).
    """
    extent = Extent(crops.shape[2], crops.shape[1])
    return tuple(PictureFaces(extent, (place.face_in_crop,)) for place in places) or (PictureFaces(extent),)


def check_images(images: Tensor) -> None:
    """Raises InvalidInputError unless images are (batch, height, width, 3 or 4), not empty."""
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
        raise InvalidInputError(
            f"the image has the shape {tuple(images.shape)}; connect an IMAGE: (pictures, height, width, 3 or 4 "
            "channels)"
        )


def masks_of(masks: Tensor, images: Tensor) -> Tensor:
    """Masks brought to the size of the pictures that they belong to.

    Args:
        masks: (num_masks, height, width) in [0, 1], of any size of the pictures' aspect ratio.
        images: (num_pictures, height, width, channels).
    Returns:
        (num_masks, height, width) float32 on the CPU, finite.
    Raises:
        ShapeMismatchError: another aspect ratio, or no masks at all.
    """
    masks, size = as_masks(masks).cpu().float().nan_to_num(0, 0, 0).clamp(0, 1), images.shape[1:3]
    extent, picture = Extent(masks.shape[2], masks.shape[1]), Extent(images.shape[2], images.shape[1])
    if extent == picture:
        return masks
    if not extent.has_aspect_of(picture):
        raise ShapeMismatchError(
            f"the masks are {extent}, the pictures {picture}: connect masks of the pictures' height and width (Load "
            "Image gives an empty 64x64 mask for a picture without transparency)"
        )
    return torch.nn.functional.interpolate(masks[:, None], size=size, mode="bilinear", antialias=True)[:, 0]


def faces_from_masks(masks: Tensor, images: Tensor) -> tuple[PictureFaces, ...]:
    """Faces where masks say they are: for drawings that no detector understands.

    Args:
        masks: (num_masks, height, width); one for each picture, or all for the one picture there is.
        images: (num_pictures, height, width, channels).
    Returns:
        One entry per picture; the box of a face is that of its mask, an empty mask is no face.
    Raises:
        ShapeMismatchError: sizes or numbers do not agree.
    """
    masks = masks_of(masks, images)
    (num_masks, height, width), num_pictures = masks.shape, images.shape[0]
    if num_masks != num_pictures and num_pictures != 1:
        raise ShapeMismatchError(
            f"{num_masks} masks cannot be shared among {num_pictures} pictures; connect one mask per picture, or faces"
        )
    found: list[list[Face]] = [[] for _ in range(num_pictures)]
    for number, mask in enumerate(masks):
        inside = mask >= 0.5
        rows, columns = inside.any(dim=1).nonzero()[:, 0], inside.any(dim=0).nonzero()[:, 0]
        if len(rows):
            box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            found[number if num_pictures > 1 else 0].append(Face(box))
    return tuple(PictureFaces(Extent(width, height), tuple(faces)) for faces in found)


def known_faces(
    images: Tensor,
    faces: Sequence[PictureFaces] | None,
    face_analysis: FaceAnalyzer | None,
    masks: Tensor | None,
) -> Sequence[PictureFaces]:
    """Where the faces of pictures are: as given, else as found, else where masks are.

    Args:
        images: (num_pictures, height, width, 3 or 4).
        faces: one entry per picture.
        face_analysis: finds them.
        masks: (num_masks, height, width), for drawings that no detector understands.
    Raises:
        InvalidInputError: nothing says where faces are.
    """
    check_images(images)
    if faces is not None:
        return faces
    if face_analysis is not None:
        return detect_faces(as_pictures(images), face_analysis)
    if masks is not None:
        return faces_from_masks(masks, images)
    raise InvalidInputError("nothing says where the faces are: connect face_analysis, faces, or a mask of each face")


def crop_faces(
    images: Tensor,
    faces: Sequence[PictureFaces],
    settings: CropSettings,
    masks: Tensor | None = None,
    parser: FaceParser | None = None,
) -> tuple[tuple[FaceCrop, ...], Tensor, Tensor]:
    """Crops of the small faces of every picture, with their masks.

    Args:
        images: (num_pictures, height, width, 3 or 4).
        faces: one entry per picture.
        settings: which faces, how large.
        masks: (num_masks, height, width), one for all pictures, one per picture, or one per face: of all that `faces`
            lists, in their order, or of the chosen ones. Without them the face is parsed, or else its outline is used.
        parser: finds the face in a crop; where it sees none, the outline is used.
    Returns:
        The crops' places, the crops (num_faces, size, size, 3) and their masks (num_faces, size, size), on the CPU.
    Raises:
        ShapeMismatchError: faces or masks are of other pictures.
    """
    check_images(images)
    extent = Extent(images.shape[2], images.shape[1])
    _check_faces(faces, images.shape[0], extent)
    chosen = [
        (picture, number, face)
        for picture, entry in enumerate(faces)
        for number, face in enumerate(entry.faces, start=1)
        if face.box.clipped(extent).area > 0 and (settings.size_limit_px == 0 or face.size_px < settings.size_limit_px)
    ]
    places = []
    for picture, number, face in chosen:
        square = face_square(face, extent, settings.margin, settings.is_upright, settings.size_px)
        max_area_px = None if masks is not None else MAX_AREA * hull_area(face)
        places.append(FaceCrop(picture, number, face, square, max_area_px))
    size = settings.size_px
    if not places:
        return (), torch.zeros(0, size, size, 3), torch.zeros(0, size, size)
    crops = torch.stack([take_crop(images[place.picture, ..., :3].cpu(), place.square) for place in places])
    if masks is not None:
        solid = _given_masks(masks_of(masks, images), places, faces)
    else:
        solid = [draw_hull(place.square.to_crop(face_hull(place.face)), size) for place in places]
    if masks is None and parser is not None:
        limits = [MAX_AREA * hull_area(place.face) * place.square.scale**2 for place in places]
        solid = [_own_face(*entry) for entry in zip(parser(crops), solid, limits, strict=True)]
    return tuple(places), crops, torch.stack([_soft(m, p, settings) for m, p in zip(solid, places, strict=True)])


def or_blank(batch: Tensor) -> Tensor:
    """The batch, or one black item where there is none: other nodes cannot take an empty batch."""
    return batch if len(batch) else batch.new_zeros(1, *batch.shape[1:])


def paste_crops(
    images: Tensor,
    places: Sequence[FaceCrop],
    restored: Tensor,
    masks: Tensor,
    are_colors_matched: bool,
) -> tuple[Tensor, Tensor]:
    """Puts crops back into their pictures.

    Args:
        images: (num_pictures, height, width, 3 or 4), those that were cropped.
        places: of the crops; without any, nothing changes.
        restored: (num_faces, any size, the same, 3).
        masks: (num_faces, any size, the same).
        are_colors_matched: give each crop the colours of the original, measured outside its mask.
    Returns:
        The new pictures, and what changed in each, (num_pictures, height, width).
    Raises:
        ShapeMismatchError: the numbers do not agree, or the crops are not square.
        InvalidInputError: a crop is not finite.
    """
    check_images(images)
    if places and not (len(places) == len(restored) == len(masks)):
        raise ShapeMismatchError(
            f"{len(places)} faces were cropped, but {len(restored)} crops and {len(masks)} masks come back: keep all"
        )
    if places and (restored.shape[1] != restored.shape[2] or masks.shape[1] != masks.shape[2]):
        raise ShapeMismatchError(
            f"the crops are {tuple(restored.shape)} and their masks {tuple(masks.shape)}; both must stay square"
        )
    if places and not restored.isfinite().all():
        raise InvalidInputError(
            "some crops hold values that are not finite (NaN): the model or the VAE overflowed; run it in float32"
        )
    if places and max(place.picture for place in places) >= images.shape[0]:
        raise ShapeMismatchError(f"the crops come from more pictures than the {images.shape[0]} connected here")
    by_picture: list[list[RestoredFace]] = [[] for _ in images]
    for place, crop, mask in zip(places, restored, masks, strict=False):  # without places there is one blank crop
        crop = crop[..., :3].cpu().float().clamp(0, 1)
        if are_colors_matched:
            square = replace(place.square, size_px=crop.shape[0])
            original = take_crop(images[place.picture, ..., :3].cpu(), square)
            crop = match_colors(crop, original, _resized(mask.cpu(), crop.shape[0]))
        by_picture[place.picture].append(RestoredFace(crop, mask.cpu(), place.square, place.max_area_px))
    pasted = [paste_faces(image, faces) for image, faces in zip(images, by_picture, strict=True)]
    return torch.stack([picture for picture, _ in pasted]), torch.stack([changed for _, changed in pasted])


def _check_faces(faces: Sequence[PictureFaces], num_pictures: int, extent: Extent) -> None:
    if len(faces) != num_pictures:
        raise ShapeMismatchError(
            f"faces of {len(faces)} pictures are connected to {num_pictures}; detect them on the same images"
        )
    for number, entry in enumerate(faces, start=1):
        if entry.extent != extent:
            raise ShapeMismatchError(
                f"the faces of picture {number} were found at {entry.extent}, the picture is {extent}: detect them on "
                "the same images"
            )


def _given_masks(masks: Tensor, places: Sequence[FaceCrop], faces: Sequence[PictureFaces]) -> list[Tensor]:
    """The user's masks as seen in each crop; as many as pictures belong to the pictures, else to the faces."""
    first, num_given = [0, *accumulate(len(entry.faces) for entry in faces)], len(masks)
    num_faces = first[-1]
    own = {
        num_faces: [first[place.picture] + place.number - 1 for place in places],
        len(places): range(len(places)),
        len(faces): [place.picture for place in places],
        1: [0] * len(places),
    }
    if num_given not in own:
        masks = masks[masks.flatten(1).amax(dim=1) >= 0.5]  # an empty mask is no face, as in `faces_from_masks`
    if len(masks) not in own:
        raise ShapeMismatchError(
            f"{num_given} masks are connected; connect one, one per picture ({len(faces)}), or one per face "
            f"({num_faces}, of which {len(places)} are taken)"
        )
    return [
        take_crop(masks[index][..., None], place.square, mode="bilinear")[..., 0]
        for index, place in zip(own[len(masks)], places, strict=True)
    ]


def _own_face(parsed: Tensor, hull: Tensor, max_area: float) -> Tensor:
    """What was parsed of this face, without a neighbour's; the hull where nothing was."""
    own = parsed * soften_mask(hull, growth_within(hull, max_area), 0)
    return own if own.any() else hull


def _soft(mask: Tensor, place: FaceCrop, settings: CropSettings) -> Tensor:
    """A solid mask in crop pixels, dilated and smoothed, kept within the limit of area if there is one."""
    face_px = place.face.size_px * place.square.scale
    grow, feather = settings.mask_grow * face_px, settings.mask_feather * face_px
    if place.max_area_px is None:
        return soften_mask(mask, grow, feather) if grow or feather else mask
    resampling_px = place.square.scale + 1  # pasting spreads an edge by up to a pixel of either grid
    return bounded_mask(mask, grow, feather, place.max_area_px * place.square.scale**2, resampling_px)


def _resized(mask: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(mask[None, None], size=(size, size), mode="bilinear", antialias=True)[0, 0]
