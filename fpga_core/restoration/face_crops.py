"""Finds faces in a batch of pictures, and takes them out with one record for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError, ShapeMismatchError
from ..faces.detection import as_pictures, detect_faces
from ..faces.drawing import Canvas, FaceStyle, draw_face, drawn_points
from ..faces.face import Face, FaceAnalyzer, PictureFaces
from ..shapes import Extent
from .crops import CropSquare, face_square, take_crop
from .masks import (
    FaceParser,
    faces_from_masks,
    fit_masks,
    found_mask,
    given_mask,
    identity_region,
    masks_of_faces,
    widened,
)
from .matching import Match
from .settings import CropSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceCrop:
    """One face on its way from a picture into its crop and back.

    Attributes:
        picture_index: index of its picture in the batch.
        face_index: index of the face among all faces of its picture.
        face: in pixels of the picture.
        square: the place of the crop in the picture.
        crop: (size, size, 3) in [0, 1], on the CPU, as taken from the picture or as restored; the size of a restored
            crop can differ from `square.size_px`.
        paste_mask: the area that is pasted into the picture, (size, size) in [0, 1].
        fusion_mask: the area that is regenerated while the rest is replayed, M of Alg. 1, (size, size) in [0, 1].
        identity_mask: the area in which the identity acts, (size, size) in [0, 1].
        hint: the drawing of its landmarks, (size, size, 3), black if it has none; None if nothing reads it.
        match: the person whose face it is; None if there is no cast, or if nobody matches.
    """

    picture_index: int
    face_index: int
    face: Face
    square: CropSquare
    crop: Tensor
    paste_mask: Tensor
    fusion_mask: Tensor
    identity_mask: Tensor
    hint: Tensor | None = None
    match: Match | None = None

    @property
    def label(self) -> str:
        """The name of the face in reports."""
        return f"picture {self.picture_index + 1}, face {self.face_index + 1}"

    @property
    def face_in_crop(self) -> Face:
        """Returns the face in pixels of the crop."""
        return self.square.face_in_crop(self.face)


def known_faces(
    images: Tensor,
    *,
    faces: Sequence[PictureFaces] | None,
    face_analysis: FaceAnalyzer | None,
    masks: Tensor | None,
) -> Sequence[PictureFaces]:
    """Returns the faces of pictures: given ones, or found ones, or those that masks show.

    Args:
        images: (num_pictures, height, width, 3 or 4).
        faces: one entry per picture.
        face_analysis: finds the faces.
        masks: (num_masks, height, width), for drawings that no detector understands.
    Raises:
        InvalidInputError: there is no source of faces.
    """
    if faces is not None:
        return faces
    if face_analysis is not None:
        return detect_faces(as_pictures(images), face_analysis)
    if masks is not None:
        return faces_from_masks(masks, images)
    raise InvalidInputError(
        "there is no information on where the faces are; connect face_analysis, faces, or a mask of each face"
    )


def crop_faces(
    images: Tensor,
    faces: Sequence[PictureFaces],
    settings: CropSettings,
    *,
    masks: Tensor | None = None,
    parser: FaceParser | None = None,
    matches: Sequence[Sequence[Match | None]] | None = None,
    hint_style: FaceStyle | None = None,
) -> tuple[FaceCrop, ...]:
    """Crops the small faces out of every picture.

    Args:
        images: (num_pictures, height, width, 3 or 4).
        faces: one entry per picture.
        settings: which faces to take, and how to crop them.
        masks: (num_masks, height, width), one for all pictures, one per picture, or one per face: either for all of
            `faces`, in their order, or for those that are taken. Without masks, the face is parsed, or its outline is
            used.
        parser: finds the face in a crop; if it finds none, the outline is used.
        matches: the person of each face in `faces`; None if there is no cast.
        hint_style: how to draw each face's landmarks; None draws none.
    Returns:
        One record for each face that is taken. What is pasted is what is fused; the identity acts in a larger place.
    Raises:
        InvalidInputError: the images are not pictures.
        ShapeMismatchError: faces or masks belong to other pictures.
    """
    check_images(images)
    extent = Extent(images.shape[2], images.shape[1])
    check_faces(faces, images.shape[0], extent)
    taken = [
        (picture_index, face_index)
        for picture_index, entry in enumerate(faces)
        for face_index, face in enumerate(entry.faces)
        if settings.takes(face, extent)
    ]
    if not taken:
        return ()
    given = [None] * len(taken) if masks is None else masks_of_faces(fit_masks(masks, images), faces, taken)
    crops: list[FaceCrop] = []
    for (picture_index, face_index), own_mask in zip(taken, given, strict=True):
        face = faces[picture_index].faces[face_index]
        square = face_square(
            face, extent, margin=settings.margin, is_upright=settings.is_upright, size_px=settings.size_px
        )
        crop = take_crop(images[picture_index, ..., :3].cpu(), square)
        if own_mask is None:
            mask = found_mask(crop, face, square, extent=extent, settings=settings, parser=parser)
            region = identity_region(face, square, settings.identity_region)
        else:
            mask = given_mask(own_mask, face, square, settings=settings)
            region = widened(take_crop(own_mask[..., None], square, mode="bilinear")[..., 0], settings.identity_region)
        crops.append(
            FaceCrop(
                picture_index=picture_index,
                face_index=face_index,
                face=face,
                square=square,
                crop=crop,
                paste_mask=mask,
                fusion_mask=mask,
                identity_mask=mask if settings.identity_region == 0 else region,
                hint=None if hint_style is None else draw_hint(square.face_in_crop(face), square.size_px, hint_style),
                match=None if matches is None else matches[picture_index][face_index],
            )
        )
    return tuple(crops)


def check_images(images: Tensor) -> None:
    """Raises InvalidInputError unless images are (batch, height, width, 3 or 4) and not empty."""
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
        raise InvalidInputError(
            f"the image has the shape {tuple(images.shape)}; connect an IMAGE of the shape (pictures, height, width, 3 "
            "or 4 channels)"
        )


def check_faces(faces: Sequence[PictureFaces], num_pictures: int, extent: Extent) -> None:
    """Raises ShapeMismatchError unless faces belong to this number of pictures of this size."""
    if len(faces) != num_pictures:
        raise ShapeMismatchError(
            f"the faces belong to a batch of {len(faces)}, but the images are a batch of {num_pictures}; detect the "
            "faces in the same images"
        )
    for number, entry in enumerate(faces, start=1):
        if entry.extent != extent:
            raise ShapeMismatchError(
                f"the faces of picture {number} were found at {entry.extent}, but the picture is {extent}; detect the "
                "faces in the same images"
            )


def draw_hint(face: Face, size_px: int, style: FaceStyle) -> Tensor:
    """Draws a face's landmarks, in pixels of its crop, as a condition image, (size_px, size_px, 3)."""
    extent = Extent(size_px, size_px)
    canvas = Canvas(extent, extent, line_width=1.0)
    if face.landmarks is not None:
        draw_face(canvas, drawn_points(face, face.landmarks, style), style)
    return torch.as_tensor(canvas.pixels)


def stack_crops(crops: Sequence[FaceCrop], size_px: int) -> tuple[Tensor, Tensor]:
    """Stacks crops and their paste masks for other nodes.

    Args:
        size_px: side of the crops, needed if there are none.
    Returns:
        (num_faces, size, size, 3) and (num_faces, size, size); other nodes cannot read an empty batch, so one black
        crop with an empty mask stands for no face.
    """
    if not crops:
        return torch.zeros(1, size_px, size_px, 3), torch.zeros(1, size_px, size_px)
    return torch.stack([entry.crop for entry in crops]), torch.stack([entry.paste_mask for entry in crops])


def faces_in_crops(crops: Sequence[FaceCrop], size_px: int) -> tuple[PictureFaces, ...]:
    """Returns the face of each crop in its pixels; without faces, one empty crop, as in `stack_crops`."""
    extent = Extent(size_px, size_px)
    return tuple(PictureFaces(extent, (entry.face_in_crop,)) for entry in crops) or (PictureFaces(extent),)
