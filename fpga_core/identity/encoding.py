"""Encodes the photos of one person as an identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import FaceNotFoundError, InvalidInputError
from ..faces.alignment import align_face
from ..faces.detection import as_pictures
from ..faces.face import Face, FaceAnalyzer
from ..faces.likeness import MIN_LIKENESS
from ..faces.ordering import FaceOrder, select_faces
from ..faces.seeing import find_faces
from .identity import PHOTO_VIEW, Combine, Identity

CROP_PX = 224
MIN_FACE_PX = 32
"""Below this size, the recogniser's 112x112 input is mostly interpolation."""

OUTLIER_RATIO = 0.6
"""A photo is an outlier if its likeness to the others is below this fraction of the median likeness."""


class FaceChoice(str, Enum):
    """Which face of a photo belongs to the person."""

    LARGEST = "largest"
    INDEX = "index"


class ImageEncoder(Protocol):
    """A CLIP-Vision model. `patching.clip_vision` wraps that of ComfyUI."""

    @property
    def key(self) -> str:
        """A name of the model that does not depend on its file name."""
        ...

    def hidden_states(self, images: Sequence[Tensor]) -> Tensor:
        """Returns the penultimate hidden states, (images, tokens, width), of images in one call.

        Args:
            images: (1, height, width, 3) each, in [0, 1].
        """
        ...

    def null_hidden_states(self) -> Tensor:
        """Hidden states, (1, tokens, width), of an image that is zero after pixel normalisation."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoding:
    """An identity, and what happened to each photo.

    Attributes:
        identity: the person.
        crops: (photos, 224, 224, 3) float32 in [0, 1], the encoded part of each photo, including dropped ones.
        likeness: per photo the cosine with the mean of the others; empty if there is only one photo, or no face
            analysis.
        outliers: numbers, from 1, of the photos that look like someone else.
        dropped: numbers of the photos that are not part of the identity.
    """

    identity: Identity
    crops: Tensor
    likeness: tuple[float, ...]
    outliers: tuple[int, ...]
    dropped: tuple[int, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should look at: photos that seem to show different people."""
        mean = sum(self.likeness) / max(len(self.likeness), 1)
        if not self.likeness or mean >= MIN_LIKENESS:
            return ()
        return (
            f"the {len(self.likeness)} photos hardly resemble each other (mean likeness {mean:.2f}), so they probably "
            "show different people; encode each person as an identity of their own, and place them with Make Cast",
        )

    @property
    def text(self) -> str:
        """The warnings and the report."""
        return "\n".join((*(f"Warning: {warning}" for warning in self.warnings), self.report()))

    def report(self) -> str:
        """Returns a report with one line per fact."""
        lines = [self.identity.description]
        for number, likeness in enumerate(self.likeness, start=1):
            note = ""
            if number in self.outliers:
                note = " - looks like someone else" + (": left out" if number in self.dropped else "")
            lines.append(f"photo {number}: likeness to the others {likeness:.2f}{note}")
        return "\n".join(lines)


def split_photos(images: Sequence[Tensor]) -> list[Tensor]:
    """Splits batches into single photos.

    Args:
        images: batches, (photos, height, width, channels) float in [0, 1], 1, 3 or 4 channels (alpha is dropped), each
            of its own size.
    Returns:
        (1, height, width, 3) each, in order.
    Raises:
        InvalidInputError: there are none, or a photo has another layout, too few pixels, or values that are not finite.
    """
    photos = [photo[None] for batch in images for photo in batch]
    if not photos:
        raise InvalidInputError("no photos to encode; connect one or more")
    for number, photo in enumerate(photos, start=1):
        if photo.ndim != 4 or photo.shape[-1] not in (1, 3, 4) or photo.numel() == 0:
            raise InvalidInputError(
                f"photo {number} is {tuple(photo.shape[1:])}, not (height, width, 1, 3 or 4 channels); connect an IMAGE"
            )
        if min(photo.shape[1:3]) < MIN_FACE_PX:
            raise InvalidInputError(
                f"photo {number} is {photo.shape[2]}x{photo.shape[1]} pixels, too small to show a face (at least "
                f"{MIN_FACE_PX} each way); use a larger one"
            )
        if not torch.isfinite(photo).all():
            raise InvalidInputError(
                f"photo {number} holds values that are not numbers (NaN or infinity); check the node that made it, or "
                "load the photo from its file"
            )
    return [photo[..., :3].float().expand(-1, -1, -1, 3).clamp(0, 1) for photo in photos]


def choose_faces(
    found: Sequence[Sequence[Face]], choice: FaceChoice, *, number: int = 1, min_size_px: float = MIN_FACE_PX
) -> list[Face]:
    """Returns the person's face in each photo.

    Args:
        found: the faces of each photo.
        choice: the largest one, or the one that Detect Faces numbers `number`.
        number: from 1, largest first; for `FaceChoice.INDEX`.
        min_size_px: smallest usable longer side of a face's box.
    Returns:
        One face per photo.
    Raises:
        FaceNotFoundError: a photo has no face, too few faces, or only one that is too small; the message names every
            such photo.
    """
    wanted = number if choice is FaceChoice.INDEX else 1
    chosen: list[Face] = []
    faults: list[str] = []
    for photo, faces in enumerate(found, start=1):
        ordered = select_faces(faces, FaceOrder.LARGEST_FIRST)
        if not ordered:
            faults.append(f"photo {photo} shows no face")
        elif len(ordered) < wanted:
            faults.append(f"photo {photo} shows {len(ordered)} face(s), but index is {wanted}")
        elif ordered[wanted - 1].size_px < min_size_px:
            size = ordered[wanted - 1].size_px
            faults.append(f"the face in photo {photo} is {size:.0f} px, too small (at least {min_size_px:.0f} px)")
        else:
            chosen.append(ordered[wanted - 1])
    if faults:
        raise FaceNotFoundError(f"{'; '.join(faults)}: use larger or clearer photos, or leave these out")
    return chosen


def photo_likeness(embeddings: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Measures how closely each photo resembles the others, and finds outliers.

    Each photo is compared with the mean of the others, which it is not part of. If it were compared with the mean of
    all photos, a wrong photo among three would support itself.

    Args:
        embeddings: (photos, dim), of one recogniser, not zero.
    Returns:
        The cosine of each photo with the others, empty for one photo; and the positions, from 0, of the outliers. Of
        two photos, neither is an outlier, because neither is more likely to be right.
    """
    if len(embeddings) < 2:
        return (), ()
    unit = functional.normalize(embeddings.double(), dim=-1)
    others = functional.normalize(unit.sum(dim=0) - unit, dim=-1)
    cosines = (unit * others).sum(dim=-1)
    likeness = tuple(float(cosine) for cosine in cosines)
    if len(likeness) < 3:
        return likeness, ()
    limit = OUTLIER_RATIO * max(float(cosines.median()), 0.0)
    return likeness, tuple(position for position, cosine in enumerate(likeness) if cosine < limit)


def encoder_problem(has_face_analysis: bool, has_clip_vision: bool) -> str | None:
    """What to tell the user if there is nothing to encode with."""
    if has_face_analysis or has_clip_vision:
        return None
    return "connect a face analysis, a CLIP-Vision model, or both: there is nothing to encode with"


def encode_photos(
    images: Sequence[Tensor],
    face_analysis: FaceAnalyzer | None,
    clip_vision: ImageEncoder | None,
    *,
    choice: FaceChoice = FaceChoice.LARGEST,
    number: int = 1,
    combine: Combine = Combine.MEAN,
    drop_outliers: bool = False,
    name: str = "",
    extend: Identity | None = None,
) -> Encoding:
    """Encodes the photos of one person.

    With a face analysis, CLIP-Vision sees each face aligned at 224x224, as FaceID-Plus was trained. Without one, it
    sees the photo itself, which should be a crop of the face, as plus-face was trained. An identity can hold both.

    Args:
        images: batches of photos, as `split_photos` takes them.
        face_analysis: finds and recognises the face; None if the photos are face crops, for adapters that need CLIP
            only.
        clip_vision: None for no CLIP features, for adapters that need the face embedding only.
        choice: which face of each photo to use.
        number: which face, for `FaceChoice.INDEX`.
        combine: how the photos are combined.
        drop_outliers: whether to leave out photos that look like someone else.
        name: the person's name.
        extend: an identity that other encoders made from the same photos; the result holds both, with this call's name
            and combine rule.
    Returns:
        The identity, and what happened to each photo.
    Raises:
        InvalidInputError: no encoder is given, a photo is unusable, or `extend` comes from other photos.
        FaceNotFoundError: a photo has no usable face.
        DetectionError: the face analysis fails, or delivers what cannot be a face.
    """
    name = name.strip() or "unnamed"
    if problem := encoder_problem(face_analysis is not None, clip_vision is not None):
        raise InvalidInputError(problem)
    photos = split_photos(images)
    views, embeddings = (
        _recognise(photos, face_analysis, choice=choice, number=number) if face_analysis else (photos, {})
    )
    if face_analysis is not None and clip_vision is None and not embeddings:
        raise InvalidInputError(
            f"the face analysis '{face_analysis.description}' finds faces, but recognises nobody; use a pack with a "
            "recogniser, such as buffalo_l, or connect a CLIP-Vision model"
        )
    likeness, outliers = photo_likeness(next(iter(embeddings.values()))) if embeddings else ((), ())
    dropped = outliers if drop_outliers else ()
    kept = [position for position in range(len(photos)) if position not in dropped]
    hidden: dict[str, Tensor] = {}
    null: dict[str, Tensor] = {}
    if clip_vision is not None:
        view = clip_vision.key + ("" if face_analysis else PHOTO_VIEW)
        hidden[view] = clip_vision.hidden_states([views[position] for position in kept])
        null[view] = clip_vision.null_hidden_states()
    identity = Identity(
        name,
        embeddings={key: rows[kept] for key, rows in embeddings.items()},
        clip_hidden=hidden,
        clip_null=null,
        combine=combine.value,
    )
    return Encoding(
        identity=identity if extend is None else extend.extended_by(identity),
        crops=torch.cat([_square(view) for view in views]),
        likeness=likeness,
        outliers=tuple(position + 1 for position in outliers),
        dropped=tuple(position + 1 for position in dropped),
    )


def _recognise(
    photos: Sequence[Tensor], face_analysis: FaceAnalyzer, *, choice: FaceChoice, number: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Returns each photo's aligned face, and recogniser -> embeddings (photos, 512)."""
    pictures = [as_pictures(photo)[0] for photo in photos]
    faces = choose_faces(find_faces(face_analysis, pictures), choice, number=number)
    views = [_view(picture, face) for picture, face in zip(pictures, faces, strict=True)]
    recogniser = face_analysis.recogniser
    if recogniser is None:
        return views, {}
    return views, {recogniser: torch.as_tensor(np.stack([face.embeddings[recogniser] for face in faces])).float()}


def _view(picture: np.ndarray, face: Face) -> Tensor:
    """Returns the aligned face as an image, (1, 224, 224, 3)."""
    return torch.as_tensor(align_face(picture, face, CROP_PX)).float()[None] / 255


def _square(image: Tensor) -> Tensor:
    """Returns the middle square of an image at 224x224, which is what CLIP-Vision sees of it."""
    if image.shape[1:3] == (CROP_PX, CROP_PX):
        return image
    height, width = image.shape[1:3]
    scale = CROP_PX / min(height, width)
    size = (max(round(height * scale), CROP_PX), max(round(width * scale), CROP_PX))
    resized = functional.interpolate(image.movedim(-1, 1), size=size, mode="bicubic", antialias=True)  # BHWC -> BCHW
    top, left = (size[0] - CROP_PX) // 2, (size[1] - CROP_PX) // 2
    return resized[:, :, top : top + CROP_PX, left : left + CROP_PX].movedim(1, -1).clamp(0, 1)  # BCHW -> BHWC
