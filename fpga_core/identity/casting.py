"""Makes a cast of identities and places, and says who was placed where."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from ..errors import InvalidInputError
from ..faces.likeness import MIN_LIKENESS
from ..shapes import Extent
from .assignment import Assignment, Placement, assign_places, same_name
from .cast import Cast, CastMember
from .identity import Identity
from .places import FoundPlaces, Place
from .strengths import check_strengths

OVERLAP_GRID = 128
"""The cells on the longer side of the grid on which overlaps are measured."""

MIN_SHARED = 0.005
"""Regions that share a smaller part of the smaller one only touch."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Casting:
    """A cast, and how its people were placed.

    Attributes:
        cast: who is in the picture.
        summaries: one line per member: who was placed where.
        unused: usable places that nobody was assigned to.
        notes: notes for the user: who was left out, what could not be used, and who overlaps.
    """

    cast: Cast
    summaries: tuple[str, ...]
    unused: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join((*self.summaries, *(f"Note: {note}" for note in self.notes)))


def make_cast(
    identities: Sequence[Identity],
    canvas: Extent,
    found: FoundPlaces | None = None,
    *,
    assign: Assignment = Assignment.ORDER,
    strengths: Sequence[float] = (),
) -> Casting:
    """Gives each identity a place.

    Every identity gets at most one place, and every place at most one identity. Identities without a place are left out
    of the cast, and places without an identity stay unused. The notes name both. Without any places, everyone acts in
    the whole picture.

    Args:
        identities: the people, in the order that the assignment and the strengths refer to.
        canvas: size of the picture in pixels.
        found: what `find_places` read; None = nobody has a place of their own.
        assign: who gets which place.
        strengths: one per identity, 0-5; if empty, all are 1.
    Returns:
        The cast, with its members in the order of the identities.
    Raises:
        InvalidInputError: there are no identities or no usable places, the strengths do not fit, or likeness is asked
            for but faces and identities have no recogniser in common.
    """
    if not identities:
        raise InvalidInputError("a cast needs at least one identity; connect one")
    strengths = check_strengths(strengths, len(identities))
    everyone = [CastMember(i, strength=strength) for i, strength in zip(identities, strengths, strict=True)]
    if found is None:
        summaries = tuple(_summary(number, member, "the whole picture") for number, member in enumerate(everyone, 1))
        return Casting(cast=Cast(tuple(everyone), canvas), summaries=summaries, notes=_mixing_notes(everyone))
    check_places(found.places)
    placements = {
        i: placement
        for i, placement in assign_places(identities, found.places, assign).items()
        if placement.place.region
    }
    if not placements and all(place.name for place in found.places):
        raise InvalidInputError(
            f"the places are named {_listed(place.name for place in found.places)}, but the people are called "
            f"{_listed(identity.name for identity in identities)}; use the same names in Encode Identity, or clear "
            "those of the places"
        )
    if not placements:
        raise InvalidInputError(
            f"the places of all {len(identities)} identities are unusable, and only later places can be used; with "
            "assign = order, place 1 belongs to identity 1: reorder the places, or choose another assign"
        )
    members = tuple(
        replace(everyone[i], region=placement.place.region, face_box=placement.place.face_box)
        for i, placement in placements.items()
    )
    taken = [placement.place for placement in placements.values()]
    unused = tuple(place for place in found.places if place.region and place not in taken)
    cast = Cast(members, canvas)
    return Casting(
        cast=cast,
        summaries=tuple(
            _summary(number, member, _whereabouts(placement))
            for number, (member, placement) in enumerate(zip(members, placements.values(), strict=True), 1)
        ),
        unused=unused,
        notes=(
            *found.notes,
            *(f"{place.label} is not used: {place.problem}" for place in found.places if not place.region),
            *(f"{place.label} is not used: {_why_unused(place, identities)}" for place in unused),
            *_left_out_notes(identities, placements),
            *_unlike_notes(identities, placements),
            *_overlap_notes(cast),
        ),
    )


def check_places(places: Sequence[Place]) -> None:
    """Raises InvalidInputError, with the reasons, unless at least one place can be used."""
    if not places:
        raise InvalidInputError(
            "the source of the places is connected but holds none: nobody was found or drawn there; add at least one, "
            "or disconnect it to let everyone act in the whole picture"
        )
    if not any(place.region for place in places):
        problems = "; ".join(f"{place.label}: {place.problem}" for place in places)
        raise InvalidInputError(
            f"no place can be used ({problems}); correct at least one, or disconnect them to let everyone act in the "
            "whole picture"
        )


def _why_unused(place: Place, identities: Sequence[Identity]) -> str:
    if not place.name:
        return "it has no identity"
    if any(same_name(place.name, identity.name) for identity in identities):
        return f"{place.name} already has a place"
    return f"it is named {place.name}, but the people are called {_listed(identity.name for identity in identities)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _summary(number: int, member: CastMember, where: str) -> str:
    strength = f", strength {member.strength:g}" if member.strength != 1 else ""
    return f"#{number} {member.identity.name}: {where}{strength}"


def _whereabouts(placement: Placement) -> str:
    alike = "" if placement.likeness is None else f", likeness {placement.likeness:.2f}"
    return placement.place.label + alike


def _mixing_notes(members: Sequence[CastMember]) -> tuple[str, ...]:
    if len(members) < 2:
        return ()
    return (
        f"{len(members)} people share the whole picture, so their faces will mix; connect boxes, masks, faces or a "
        "skeleton",
    )


def _left_out_notes(identities: Sequence[Identity], placements: Mapping[int, Placement]) -> list[str]:
    return [
        f"identity {i + 1} ({identity.name}) is left out: it has no place"
        for i, identity in enumerate(identities)
        if i not in placements
    ]


def _unlike_notes(identities: Sequence[Identity], placements: Mapping[int, Placement]) -> list[str]:
    return [
        f"#{number} {identities[i].name} and {placement.place.label} hardly resemble each other "
        f"({placement.likeness:.2f}): probably two different people"
        for number, (i, placement) in enumerate(placements.items(), 1)
        if placement.likeness is not None and placement.likeness < MIN_LIKENESS
    ]


def _overlap_notes(cast: Cast) -> list[str]:
    longer = max(cast.extent.width, cast.extent.height)
    grid = Extent(
        math.ceil(cast.extent.width * OVERLAP_GRID / longer), math.ceil(cast.extent.height * OVERLAP_GRID / longer)
    )
    weights = cast.rasterise_alone(grid)
    notes: list[str] = []
    for (a, first), (b, second) in combinations(enumerate(cast.members), 2):
        shared = torch.minimum(weights[a], weights[b]).sum() / torch.minimum(weights[a].sum(), weights[b].sum())
        if shared >= MIN_SHARED:
            notes.append(
                f"the regions of #{a + 1} {first.identity.name} and #{b + 1} {second.identity.name} overlap by "
                f"{shared:.0%} of the smaller one: they share the strength there"
            )
    return notes
