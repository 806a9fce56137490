"""FaceSim: how closely the people in a picture resemble those meant to be there, in the places meant for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInputError, ShapeMismatchError
from ..faces.face import Face, PictureFaces
from ..faces.labels import NOBODY_COLOR, Sheet, person_color
from ..faces.likeness import MIN_IOU, Portrait, best_assignment, cosine_similarities, is_in_place
from ..shapes import Extent


@dataclass(frozen=True, kw_only=True)
class MemberScore:
    """How one member of a cast came out in one picture.

    Attributes:
        name: the person's name.
        number: the person's number for the user, from 1.
        face: index of the face that was taken for them; None if there is none.
        facesim: cosine similarity, 0 if no face is in the person's place; None if the person has no face box.
        likeness: cosine similarity with that face, or with the most alike one if no face is in the person's place; None
            if there is no such face.
        iou: overlap of the same face with the person's face box; None without a face or a box.
    """

    name: str
    number: int
    face: int | None
    facesim: float | None
    likeness: float | None
    iou: float | None


@dataclass(frozen=True, eq=False)
class CastScore:
    """The scores of a cast in a batch of pictures.

    Attributes:
        pictures: the scores of each picture, in the order of the cast.
    """

    pictures: tuple[tuple[MemberScore, ...], ...]

    @property
    def facesim(self) -> float:
        """Mean over all people with face boxes and all pictures; NaN if nobody has one."""
        return _mean([member.facesim for members in self.pictures for member in members if member.facesim is not None])

    @property
    def likeness(self) -> float:
        """Mean cosine similarity of those without a face box to their faces, 0 for no face; NaN if all have one."""
        free = [member for members in self.pictures for member in members if member.facesim is None]
        return _mean([member.likeness or 0.0 for member in free])

    def report(self) -> str:
        """Returns a line with the mean, and below it a table with one line per person and picture."""
        rows = [("picture", "person", "FaceSim", "likeness", "IoU", "face")]
        for number, members in enumerate(self.pictures, 1):
            for member in members:
                figures = (_figure(member.facesim), _figure(member.likeness), _figure(member.iou), _verdict(member))
                rows.append((str(number), f"#{member.number} {member.name}", *figures))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        lines = ["  ".join((*map(str.ljust, row, widths), row[-1])).rstrip() for row in rows]
        return "\n".join((self._headline(), "", *lines))

    def _headline(self) -> str:
        num_people, num_pictures = len(self.pictures[0]), len(self.pictures)
        scope = f"{num_people} {'person' if num_people == 1 else 'people'}"
        scope += f" in {num_pictures} {'picture' if num_pictures == 1 else 'pictures'}"
        without_box = f"mean likeness {self.likeness:.3f} of those without a face box, wherever they are"
        if math.isnan(self.facesim):
            return f"FaceSim: n/a, the cast has no face boxes ({scope}; {without_box})"
        return f"FaceSim: {self.facesim:.3f} ({scope}{'' if math.isnan(self.likeness) else '; ' + without_box})"


def score_cast(
    portraits: Sequence[Portrait], pictures: Sequence[PictureFaces], *, recogniser: str, canvas: Extent
) -> CastScore:
    """Computes the FaceSim of each person in each picture.

    The faces of a picture are assigned to the people so that the sum of their FaceSims is largest; a face counts for a
    person only if its IoU with the person's face box is greater than 0.5; without a box, anywhere.

    Args:
        portraits: the people, with embeddings of `recogniser`.
        pictures: the faces found in each picture, with embeddings of `recogniser`.
        recogniser: hash that keys the faces' embeddings.
        canvas: size of the picture that the face boxes were made for; the pictures may be larger or smaller, and of any
            shape if nobody has a face box.
    Returns:
        The scores of every picture.
    Raises:
        InvalidInputError: there are no people or no pictures, or a face has no embedding of the recogniser.
        ShapeMismatchError: a picture has another aspect ratio than the canvas, so the face boxes do not fit it.
    Source: FPGA section 4.1, FaceSim and its IoU rule. The paper does not say how faces are assigned to people.
    """
    if not portraits or not pictures:
        raise InvalidInputError(
            f"{len(portraits)} people in {len(pictures)} pictures cannot be scored; at least one of each is needed"
        )
    has_boxes = any(portrait.face_box is not None for portrait in portraits)
    for number, picture in enumerate(pictures, 1):
        if has_boxes and not picture.extent.has_aspect_of(canvas):
            raise ShapeMismatchError(
                f"picture {number} is {picture.extent}, but the cast was made for {canvas}, which has another aspect "
                "ratio; score an uncropped picture, or make the cast for this size"
            )
    return CastScore(tuple(_score_picture(portraits, picture, recogniser) for picture in pictures))


def draw_scores(
    score: CastScore, portraits: Sequence[Portrait], *, pictures: Sequence[PictureFaces], images: Tensor
) -> Tensor:
    """Draws the people's places (dashed) and faces on the pictures, with colours, numbers, names and scores.

    Args:
        score: the result of `score_cast`.
        portraits: the people that were scored.
        pictures: the faces that were found.
        images: (batch, height, width, channels) float in [0, 1].
    Returns:
        (batch, height, width, 3) float32 in [0, 1]; 512 to 1024 pixels on the longer side.
    Raises:
        ShapeMismatchError: there are not as many images as scored pictures.
    """
    if len(images) != len(score.pictures):
        raise ShapeMismatchError(
            f"{len(score.pictures)} pictures were scored, but there are {len(images)} to draw on; use the same pictures"
        )
    drawn = zip(score.pictures, pictures, images, strict=True)
    return torch.cat(
        [_draw_picture(members, found, portraits=portraits, image=image) for members, found, image in drawn]
    )


def _score_picture(portraits: Sequence[Portrait], picture: PictureFaces, recogniser: str) -> tuple[MemberScore, ...]:
    numbers = [portrait.number or place for place, portrait in enumerate(portraits, 1)]
    if not picture.faces:
        return tuple(
            MemberScore(
                name=portrait.name,
                number=number,
                face=None,
                facesim=None if portrait.face_box is None else 0.0,
                likeness=None,
                iou=None,
            )
            for number, portrait in zip(numbers, portraits, strict=True)
        )
    faces = np.stack([_embedding(face, number, recogniser) for number, face in enumerate(picture.faces, 1)])
    likeness = cosine_similarities(np.stack([portrait.embedding for portrait in portraits]), faces)
    iou = np.array([[_iou(portrait, face, picture) for face in picture.faces] for portrait in portraits])
    is_free = np.array([portrait.face_box is None for portrait in portraits])
    counts = np.array([[is_in_place(float(overlap)) for overlap in row] for row in iou]) | is_free[:, None]
    # A face in the right place belongs to that person even if it does not resemble them, so it is worth more than no
    # face.
    best = best_assignment(np.where(counts, likeness.clip(min=1e-6), 0.0))
    assigned = {i: face for i, face in best.items() if counts[i, face]}
    scores: list[MemberScore] = []
    for i, portrait in enumerate(portraits):
        name, number, face = portrait.name, numbers[i], assigned.get(i)
        shown = int(likeness[i].argmax()) if face is None else face
        alike, overlap = float(likeness[i, shown]), float(iou[i, shown])
        if is_free[i]:
            seen = None if face is None else alike
            scored = MemberScore(name=name, number=number, face=face, facesim=None, likeness=seen, iou=None)
        else:
            facesim = 0.0 if face is None else alike
            scored = MemberScore(name=name, number=number, face=face, facesim=facesim, likeness=alike, iou=overlap)
        scores.append(scored)
    return tuple(scores)


def _iou(portrait: Portrait, face: Face, picture: PictureFaces) -> float:
    if portrait.face_box is None:
        return 0.0
    return portrait.face_box.scaled(picture.extent.width, picture.extent.height).iou(face.box)


def _embedding(face: Face, number: int, recogniser: str) -> np.ndarray:
    if recogniser not in face.embeddings:
        raise InvalidInputError(
            f"face {number} was not seen by the recogniser {recogniser[:12]}; find the faces with the face analysis "
            "that the identities were encoded with"
        )
    return face.embeddings[recogniser]


def _draw_picture(
    members: Sequence[MemberScore], picture: PictureFaces, *, portraits: Sequence[Portrait], image: Tensor
) -> Tensor:
    sheet = Sheet(picture.extent, image)
    boxes = [face.box.normalised(picture.extent) for face in picture.faces]
    taken = {member.face for member in members}
    for number, box in enumerate(boxes):
        if number not in taken:
            sheet.outline(box, NOBODY_COLOR)
    for member, portrait in zip(members, portraits, strict=True):
        if portrait.face_box is not None:
            sheet.outline(portrait.face_box, person_color(member.number - 1), is_dashed=True)
        if member.face is not None:
            sheet.outline(boxes[member.face], person_color(member.number - 1))
    for member, portrait in zip(members, portraits, strict=True):
        box = portrait.face_box if member.face is None else boxes[member.face]
        if box is not None:
            figure = _figure(member.likeness if member.facesim is None else member.facesim)
            color = person_color(member.number - 1)
            sheet.label(f"#{member.number}", f"{member.name} {figure}", x=box.x0, y=box.y0, color=color)
    return sheet.as_image()


def _verdict(member: MemberScore) -> str:
    if member.face is not None:
        return f"face {member.face + 1}"
    if member.likeness is None:
        return "no face found"
    return f"no face has an IoU above {MIN_IOU} with the face box; the most similar one is shown"


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
