"""Finds the faces of pictures: given ones, those that an analyser finds, or those that masks show."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import InvalidInputError, ShapeMismatchError
from ..faces.detection import as_pictures, detect_faces
from ..faces.face import Face, FaceAnalyzer, PictureFaces
from ..geometry import Box
from ..shapes import Extent
from .masks import fit_masks


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


def faces_from_masks(masks: Tensor, images: Tensor) -> tuple[PictureFaces, ...]:
    """Makes faces from masks, for drawings that no detector understands.

    Args:
        masks: (num_masks, height, width); one for each picture, or all of them for a single picture.
        images: (num_pictures, height, width, channels).
    Returns:
        One entry per picture. The box of a face is that of its mask; an empty mask is not a face.
    Raises:
        ShapeMismatchError: sizes or numbers do not agree.
    """
    masks = fit_masks(masks, images)
    (num_masks, height, width), num_pictures = masks.shape, images.shape[0]
    if num_masks != num_pictures and num_pictures != 1:
        raise ShapeMismatchError(
            f"{num_masks} masks cannot be assigned to {num_pictures} pictures; connect one mask per picture, or faces"
        )
    found: list[list[Face]] = [[] for _ in range(num_pictures)]
    for index, mask in enumerate(masks):
        inside = mask >= 0.5
        rows, columns = inside.any(dim=1).nonzero()[:, 0], inside.any(dim=0).nonzero()[:, 0]
        if len(rows):
            box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            found[index if num_pictures > 1 else 0].append(Face(box))
    return tuple(PictureFaces(Extent(width, height), tuple(faces)) for faces in found)
