"""Matches faces with the members of a cast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ..errors import InvalidInputError
from ..faces.likeness import MIN_LIKENESS, best_assignment
from ..geometry import Box

MIN_OVERLAP = 0.5
"""The overlap of a face's box and an identity's place, relative to the smaller one, from which they belong together."""

TIE_BREAK = 1e-3
"""The weight of likeness relative to overlap. It only decides between faces at the same place."""


class MatchBy(str, Enum):
    """How faces are matched with the members of a cast."""

    AUTO = "auto"
    """By place first, and then by likeness. If one face and one member remain, they are matched."""

    ORDER = "order"
    """Face 1 of every picture goes to the person with number 1, and so on."""

    FIRST = "first"
    """Every face goes to the first member, for a face swap."""


@dataclass(frozen=True)
class Match:
    """The member of the cast whose face it is, by index, and the reason for the user."""

    member: int
    reason: str


def match_faces(
    faces: Sequence[Box],
    places: Sequence[Box | None],
    likeness: np.ndarray | None = None,
    *,
    by: MatchBy = MatchBy.AUTO,
    numbers: Sequence[int] = (),
) -> tuple[Match | None, ...]:
    """Matches each face of a picture with at most one member of a cast, and each member with one face (except `FIRST`).

    Args:
        faces: boxes of the faces, fractions of the picture.
        places: the place of each member's face or region, as fractions of the picture; None if it is unknown.
        likeness: cosine similarities, (num_faces, num_members); NaN if one cannot be measured; None if none can.
        by: which evidence counts.
        numbers: the number of each member, from 1; if empty, they follow each other.
    Returns:
        One entry per face; None if there is no evidence for any member.
    Raises:
        InvalidInputError: there is no member, or `likeness` has another shape.
    """
    if not places:
        raise InvalidInputError("the cast is empty; add at least one identity")
    if likeness is not None and likeness.shape != (len(faces), len(places)):
        raise InvalidInputError(f"likeness is {likeness.shape} for {len(faces)} faces and {len(places)} identities")
    if by is MatchBy.FIRST:
        return tuple(Match(0, "the first identity for every face") for _ in faces)
    if by is MatchBy.ORDER:
        members = {number: member for member, number in enumerate(numbers or range(1, len(places) + 1))}
        in_order = range(1, len(faces) + 1)
        return tuple(Match(members[n], f"number {n} in order") if n in members else None for n in in_order)
    found: dict[int, Match] = {}
    if not faces:
        return ()
    overlap = np.array([[_overlap(face, place) for place in places] for face in faces])
    alike = np.zeros_like(overlap) if likeness is None else np.nan_to_num(likeness, nan=0.0)
    _assign(found, overlap, reason="by place, overlap {:.2f}", threshold=MIN_OVERLAP, tie_break=TIE_BREAK * alike)
    _assign(found, alike, reason="by likeness {:.2f}", threshold=MIN_LIKENESS)
    if len(faces) - len(found) == 1 == len(places) - len(found):
        _assign(found, np.ones_like(overlap), reason="the only one left", threshold=1.0)
    return tuple(found.get(face) for face in range(len(faces)))


def _overlap(face: Box, place: Box | None) -> float:
    if place is None or face.area == 0 or place.area == 0:
        return 0.0
    return face.intersection(place).area / min(face.area, place.area)


def _assign(
    found: dict[int, Match],
    scores: np.ndarray,
    *,
    reason: str,
    threshold: float,
    tie_break: np.ndarray | float = 0.0,
) -> None:
    """Adds the best pairing of the faces and members that are still free, if it reaches the threshold."""
    taken = {match.member for match in found.values()}
    faces = [face for face in range(scores.shape[0]) if face not in found]
    members = [member for member in range(scores.shape[1]) if member not in taken]
    if not faces or not members:
        return
    free = np.ix_(faces, members)
    for row, column in best_assignment(np.where(scores >= threshold, scores + tie_break, 0.0)[free]).items():
        score = scores[free][row, column]
        if score >= threshold:
            found[faces[row]] = Match(members[column], reason.format(score))
