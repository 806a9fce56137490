"""The scores of a batch of pictures, side by side: what Score Pictures shows, and what Keep Alike chooses by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError, ShapeMismatchError
from ..faces.face import PictureFaces
from ..faces.likeness import Portrait
from ..shapes import Extent
from .bleed import bleed
from .copy_paste import copy_paste
from .facesim import MemberScore, score_cast
from .table import FACESIM, Spread

LIKENESS, BLEED, COPY_PASTE = "likeness", "bleed", "copy-paste"
CLIP_I, CLIP_T, DINO = "CLIP-I", "CLIP-T", "DINO"
MEASURES = (FACESIM, LIKENESS, BLEED, COPY_PASTE, CLIP_I, CLIP_T, DINO)
"""The scores of a picture, in the order in which tables show them."""

LOWER_IS_BETTER = frozenset({BLEED, COPY_PASTE})
NEEDS = {
    FACESIM: "a face analysis, and people with places",
    LIKENESS: "a face analysis, and people without places",
    BLEED: "a face analysis, and two people",
    COPY_PASTE: "a face analysis, people, and another photo of each",
    CLIP_I: "a CLIP-Vision, and references",
    CLIP_T: "a CLIP-Vision, the text side of the same CLIP, and a prompt",
    DINO: "a DINO, and references",
}
"""What each score is measured with."""


@dataclass(frozen=True, eq=False)
class PictureScores:
    """The scores of the pictures of a batch.

    Attributes:
        pictures: for each picture, score -> value; the same scores for all of them. NaN where a picture has none.
    """

    pictures: tuple[Mapping[str, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that were measured, in the order of `MEASURES`."""
        return tuple(name for name in MEASURES if self.pictures and name in self.pictures[0])

    def values(self, name: str) -> tuple[float, ...]:
        """Returns one score of every picture.

        Raises:
            InvalidInputError: that score was not measured.
        """
        if name not in self.names:
            raise InvalidInputError(
                f"{name} was not measured, only {', '.join(self.names) or 'nothing'}; choose another score, or connect "
                "what it needs to Score Pictures"
            )
        return tuple(picture[name] for picture in self.pictures)

    def mean(self, name: str) -> float:
        """Returns the mean over the pictures that have the score; NaN if there is none."""
        return Spread.of([picture.get(name, math.nan) for picture in self.pictures]).mean

    @property
    def facesim(self) -> float:
        """Mean FaceSim; mean likeness if nobody has a face box; NaN if faces were not measured."""
        return self.mean(FACESIM if FACESIM in self.names else LIKENESS)

    def report(self) -> str:
        """Returns a table with a line for each picture. `(low)` after a score says that less is better."""
        shown = [f"{name} (low)" if name in LOWER_IS_BETTER else name for name in self.names]
        rows = [("picture", *shown)]
        rows += [
            (str(number), *(as_figure(picture[name]) for name in self.names))
            for number, picture in enumerate(self.pictures, 1)
        ]
        rows += [("mean", *(as_figure(self.mean(name)) for name in self.names))] if len(self.pictures) > 1 else []
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def face_scores(
    portraits: Sequence[Portrait],
    pictures: Sequence[PictureFaces],
    *,
    recogniser: str,
    canvas: Extent,
    targets: Sequence[np.ndarray] | None = None,
) -> list[dict[str, float]]:
    """Computes what the faces of each picture say.

    FaceSim is the mean over the people with a face box, and likeness that over the others; both count 0 for a person
    whose face is not found. Bleed needs at least two people, and copy-paste needs targets.

    Args:
        portraits: the people, with embeddings of `recogniser`.
        pictures: the faces found in each picture, with embeddings of `recogniser`.
        recogniser: hash that keys the faces' embeddings.
        canvas: size of the picture that the face boxes were made for.
        targets: (dim,) embedding of another photo of each person, in the same order.
    Returns:
        For each picture, score -> value; NaN for bleed and copy-paste if no face was found.
    Raises:
        InvalidInputError, ShapeMismatchError: as `score_cast`; or there are not as many targets as people.
    """
    if targets is not None and len(targets) != len(portraits):
        raise ShapeMismatchError(f"{len(portraits)} people have {len(targets)} targets; give each person one")
    scored = score_cast(portraits, pictures, recogniser=recogniser, canvas=canvas)
    rows: list[dict[str, float]] = []
    for members, picture in zip(scored.pictures, pictures, strict=True):
        placed = [member.facesim for member in members if member.facesim is not None]
        free = [member.likeness or 0.0 for member in members if member.facesim is None]
        row = {FACESIM: _mean(placed)} if placed else {}
        row |= {LIKENESS: _mean(free)} if free else {}
        if len(portraits) > 1:
            row[BLEED] = bleed(members, portraits, picture=picture, recogniser=recogniser)
        if targets is not None:
            row[COPY_PASTE] = _copying(members, portraits, targets, [f.embeddings[recogniser] for f in picture.faces])
        rows.append(row)
    return rows


def as_figure(value: float) -> str:
    """Returns a score as tables show it."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _copying(
    members: Sequence[MemberScore],
    portraits: Sequence[Portrait],
    targets: Sequence[np.ndarray],
    faces: list[np.ndarray],
) -> float:
    people = zip(members, portraits, targets, strict=True)
    copied = [
        copy_paste(faces[member.face], target=target, reference=portrait.embedding)
        for member, portrait, target in people
        if member.face is not None
    ]
    return Spread.of(copied).mean


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
