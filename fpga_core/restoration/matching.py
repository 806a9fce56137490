"""Which identity a face is restored with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ..errors import InvalidInputError
from ..faces.likeness import MIN_LIKENESS, best_assignment
from ..geometry import Box

MIN_OVERLAP = 0.5
"""Part of the smaller of two boxes, a face and an identity's place, from which on they belong together."""

TIE_BREAK = 1e-3
"""Weight of likeness against overlap: it only decides between faces at the same place."""


class MatchBy(str, Enum):
    """How faces and identities find each other."""

    AUTO = "auto"
    """By place first, then by likeness; the last face left goes to the last identity left."""

    ORDER = "order"
    """Face 1 of every picture to identity 1, and so on."""

    FIRST = "first"
    """Every face to the first identity: a face swap."""


@dataclass(frozen=True)
class Match:
    """Whose face it is: the identity's number, and what spoke for it, as shown to the user."""

    identity: int
    reason: str


def match_faces(
    faces: Sequence[Box],
    places: Sequence[Box | None],
    likeness: np.ndarray | None = None,
    by: MatchBy = MatchBy.AUTO,
) -> tuple[Match | None, ...]:
    """Gives each face of one picture at most one identity, and each identity at most one face (except `FIRST`).

    Args:
        faces: boxes of the faces, fractions of the picture.
        places: where each identity's face or region is, fractions of the picture; None where that is not known.
        likeness: cosine similarities, (num_faces, num_identities); NaN where one cannot be measured; None if none can.
        by: which evidence counts.
    Returns:
        One entry per face; None where nothing speaks for any identity.
    Raises:
        InvalidInputError: there is no identity, or `likeness` has another shape.
    """
    if not places:
        raise InvalidInputError("the cast is empty; add at least one identity")
    if likeness is not None and likeness.shape != (len(faces), len(places)):
        raise InvalidInputError(f"likeness is {likeness.shape} for {len(faces)} faces and {len(places)} identities")
    if by is MatchBy.FIRST:
        return tuple(Match(0, "the first identity for every face") for _ in faces)
    if by is MatchBy.ORDER:
        return tuple(Match(n, f"number {n + 1} in order") if n < len(places) else None for n in range(len(faces)))
    found: dict[int, Match] = {}
    if not faces:
        return ()
    overlap = np.array([[_overlap(face, place) for place in places] for face in faces])
    alike = np.zeros_like(overlap) if likeness is None else np.nan_to_num(likeness, nan=0.0)
    _assign(found, overlap, MIN_OVERLAP, "by place, overlap {:.2f}", tie_break=TIE_BREAK * alike)
    _assign(found, alike, MIN_LIKENESS, "by likeness {:.2f}")
    if len(faces) - len(found) == 1 == len(places) - len(found):
        _assign(found, np.ones_like(overlap), 1.0, "the only one left")
    return tuple(found.get(face) for face in range(len(faces)))


def _overlap(face: Box, place: Box | None) -> float:
    if place is None or face.area == 0 or place.area == 0:
        return 0.0
    return face.intersection(place).area / min(face.area, place.area)


def _assign(
    found: dict[int, Match], scores: np.ndarray, threshold: float, reason: str, tie_break: np.ndarray | float = 0.0
) -> None:
    """Adds the best pairing of the faces and identities that are still free, as far as it reaches the threshold."""
    taken = {match.identity for match in found.values()}
    faces = [face for face in range(scores.shape[0]) if face not in found]
    identities = [identity for identity in range(scores.shape[1]) if identity not in taken]
    if not faces or not identities:
        return
    free = np.ix_(faces, identities)
    for row, column in best_assignment(np.where(scores >= threshold, scores + tie_break, 0.0)[free]).items():
        score = scores[free][row, column]
        if score >= threshold:
            found[faces[row]] = Match(identities[column], reason.format(score))
