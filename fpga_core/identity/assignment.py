"""Who gets which place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ..errors import InvalidInputError
from ..faces.likeness import best_assignment, cosine_similarities
from .identity import Identity
from .places import Place
from .recognisers import recogniser_names


class Assignment(str, Enum):
    """The rule by which people get their places."""

    ORDER = "order"
    """Place 1 goes to identity 1, and so on. If a place cannot be used, its identity is left out."""

    LEFT_TO_RIGHT = "left_to_right"
    """The leftmost usable place goes to identity 1, and so on."""

    LIKENESS = "likeness"
    """Identities and faces are paired so that their cosine similarities have the largest sum."""


@dataclass(frozen=True, eq=False)
class Placement:
    """The place that an identity gets.

    Attributes:
        place: it may be one that cannot be used.
        likeness: cosine similarity of the identity and the face that is there; None if it was not measured.
    """

    place: Place
    likeness: float | None = None


def assign_places(
    identities: Sequence[Identity], places: Sequence[Place], assign: Assignment, *, numbers: Sequence[int]
) -> dict[int, Placement]:
    """Gives every identity at most one place, and every place to at most one identity.

    A place with a name belongs to the person of that name, and to nobody if nobody is called so. The rule gives the
    other places to the other people.

    Args:
        identities: the people, in the order that the rule refers to.
        places: what was read off a source, in its order.
        assign: the rule.
        numbers: the number of each identity, from 1, by which it gets its place; a number that is missing leaves its
            place empty.
    Returns:
        Index of an identity -> its place, in the order of the identities.
    Raises:
        InvalidInputError: likeness is asked for, but faces and identities have no recogniser in common.
    """
    named = _by_name(identities, places)
    others = [i for i in range(len(identities)) if i not in named]
    open_places = [place for place in places if not place.name]
    # named people do not count for the rule, but muted ones do
    ranks = [numbers[i] - sum(numbers[j] < numbers[i] for j in named) for i in others]
    ruled = _by_rule([identities[i] for i in others], open_places, assign, numbers=ranks)
    return dict(sorted((named | {others[i]: placement for i, placement in ruled.items()}).items()))


def same_name(name: str, other: str) -> bool:
    """Whether two names are the same person's: capitals and spaces around them do not count."""
    return name.strip().casefold() == other.strip().casefold()


def _by_name(identities: Sequence[Identity], places: Sequence[Place]) -> dict[int, Placement]:
    """Gives each named place to the first person of that name who has none yet."""
    placements: dict[int, Placement] = {}
    for place in places:
        if not place.name:
            continue
        called = [i for i, identity in enumerate(identities) if same_name(identity.name, place.name)]
        if free := [i for i in called if i not in placements]:
            placements[free[0]] = Placement(place)
    return placements


def _by_rule(
    identities: Sequence[Identity], places: Sequence[Place], assign: Assignment, *, numbers: Sequence[int]
) -> dict[int, Placement]:
    if not identities or not places:
        return {}
    if assign is Assignment.ORDER:
        return _by_number(numbers, places)
    usable = [place for place in places if place.region]
    if not usable:
        return {}
    if assign is Assignment.LEFT_TO_RIGHT:
        ordered = sorted(usable, key=lambda place: place.box.center)
        return _by_number(numbers, ordered)
    likeness = _likeness(identities, usable)
    best = sorted(best_assignment(likeness).items())
    return {i: Placement(usable[column], float(likeness[i, column])) for i, column in best}


def _by_number(numbers: Sequence[int], places: Sequence[Place]) -> dict[int, Placement]:
    return {i: Placement(places[number - 1]) for i, number in enumerate(numbers) if number <= len(places)}


def _likeness(identities: Sequence[Identity], places: Sequence[Place]) -> np.ndarray:
    """Returns the cosine similarities, (num_identities, num_places).

    Raises:
        InvalidInputError: no recogniser saw all of them.
    """
    for place in places:
        if not place.embeddings:
            raise InvalidInputError(
                f"{place.label} does not show who it is, so assign = likeness cannot be used; connect faces from a "
                "face analysis with a recogniser, or assign by order or left_to_right"
            )
    seen_by = [set(seen.embeddings) for seen in (*identities, *places)]
    common = sorted(set[str].intersection(*seen_by))
    if not common:
        people = "; ".join(f"{identity.name}: {recogniser_names(identity.embeddings)}" for identity in identities)
        faces = recogniser_names(sorted({key for place in places for key in place.embeddings}))
        raise InvalidInputError(
            f"no recogniser saw both the identities ({people}) and the faces ({faces}), so they cannot be compared; "
            "encode the identities with the face analysis that found the faces, or assign by order or left_to_right"
        )
    recogniser = common[0]
    known = np.stack([identity.embedding_array(recogniser, "assigning by likeness") for identity in identities])
    return cosine_similarities(known, np.stack([place.embeddings[recogniser] for place in places]))
