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
    numbers: Sequence[int] = (),
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
        strengths: one per number, 0-5; if empty, all are 1.
        numbers: the number of each identity, from 1, ascending; if empty, they follow each other. A number that is
            missing leaves its place and its strength unused, so that nobody else moves.
    Returns:
        The cast, with its members in the order of the identities.
    Raises:
        InvalidInputError: there are no identities or no usable places, the strengths do not fit, or likeness is asked
            for but faces and identities have no recogniser in common.
    """
    if not identities:
        raise InvalidInputError("a cast needs at least one identity; connect one")
    numbers = numbers or range(1, len(identities) + 1)
    strengths = check_strengths(strengths, numbers)
    everyone = [
        CastMember(identity, strength=strength, number=number)
        for identity, strength, number in zip(identities, strengths, numbers, strict=True)
    ]
    if found is None:
        summaries = tuple(_summary(member, "the whole picture") for member in everyone)
        return Casting(cast=Cast(tuple(everyone), canvas), summaries=summaries, notes=_mixing_notes(everyone))
    check_places(found.places)
    placements = {
        i: placement
        for i, placement in assign_places(identities, found.places, assign, numbers=numbers).items()
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
            _summary(member, _whereabouts(placement))
            for member, placement in zip(members, placements.values(), strict=True)
        ),
        unused=unused,
        notes=(
            *found.notes,
            *(f"{place.label} is not used: {place.problem}" for place in found.places if not place.region),
            *(f"{place.label} is not used: {_why_unused(place, identities)}" for place in unused),
            *_left_out_notes(everyone, placements),
            *_unlike_notes(everyone, placements),
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


def _summary(member: CastMember, where: str) -> str:
    strength = f", strength {member.strength:g}" if member.strength != 1 else ""
    return f"#{member.number} {member.identity.name}: {where}{strength}"


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


def _left_out_notes(everyone: Sequence[CastMember], placements: Mapping[int, Placement]) -> list[str]:
    return [
        f"identity {member.number} ({member.identity.name}) is left out: it has no place"
        for i, member in enumerate(everyone)
        if i not in placements
    ]


def _unlike_notes(everyone: Sequence[CastMember], placements: Mapping[int, Placement]) -> list[str]:
    return [
        f"#{everyone[i].number} {everyone[i].identity.name} and {placement.place.label} hardly resemble each other "
        f"({placement.likeness:.2f}): probably two different people"
        for i, placement in placements.items()
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
                f"the regions of #{first.number} {first.identity.name} and #{second.number} {second.identity.name} "
                f"overlap by {shared:.0%} of the smaller one: they share the strength there"
            )
    return notes


def choose_canvas(images: torch.Tensor | None, width: int, height: int) -> Extent:
    """Returns the size of the picture that people are placed in.

    Args:
        images: (num_images, height, width, channels), whose size is taken; None if there are none.
        width, height: the size without images, in pixels.
    Raises:
        InvalidInputError: the batch of images is empty.
    """
    if images is None:
        return Extent(width, height)
    if images.ndim != 4 or 0 in images.shape:
        raise InvalidInputError(
            f"image has the shape {tuple(images.shape)}, so there is no picture to place people in; connect at least "
            "one picture, or disconnect image and set width and height"
        )
    return Extent(images.shape[2], images.shape[1])
