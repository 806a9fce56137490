"""A cast: named people, each in their own part of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInputError
from ..faces.likeness import MIN_LIKENESS, Portrait, best_assignment, cosine_similarities
from ..geometry import Box
from ..shapes import Extent
from .identity import Identity
from .places import Place, Places
from .recognisers import recogniser_names
from .regions import Region, share_overlap

MAX_STRENGTH = 5.0

OVERLAP_GRID = 128
"""Cells on the longer side of the grid on which overlaps are measured."""


@dataclass(frozen=True, eq=False)
class CastMember:
    """One person of a cast.

    Attributes:
        identity: who it is.
        region: where the identity acts; None = the whole picture.
        face_box: where the face is meant to be, not grown, fractions of the picture; None where only a region is known.
        strength: how strongly the identity acts, 1 = as trained, 0 = not at all.
    """

    identity: Identity
    region: Region | None = None
    face_box: Box | None = None
    strength: float = 1.0


@dataclass(frozen=True, eq=False)
class Cast:
    """The people of a picture, and the size in pixels of the canvas that they were placed on."""

    members: tuple[CastMember, ...]
    extent: Extent

    def rasterise(self, extent: Extent) -> Tensor:
        """The members' regions on a grid, overlaps shared.

        Args:
            extent: size of the grid: picture, latent, or the tokens of an attention layer.
        Returns:
            (num_members, height, width) float32 in [0, 1], summing to at most 1; strengths are not applied.
        """
        return share_overlap(_rasterised(self.members, extent))

    def portraits(self, recogniser: str | None) -> tuple[Portrait, ...]:
        """How a recogniser knows each member, for finding them again in a picture.

        Raises:
            InvalidInputError: there is no recogniser, or a member was not encoded with it.
        """
        if recogniser is None:
            raise InvalidInputError(
                "the face analysis has no recogniser, so it cannot tell people apart; load a pack with one (buffalo_l)"
            )
        return tuple(
            Portrait(member.identity.name, _embedding(member.identity, recogniser, "scoring a cast"), member.face_box)
            for member in self.members
        )


class Assignment(str, Enum):
    """Who gets which place."""

    ORDER = "order"
    """Place 1 to identity 1, and so on; a place that cannot be used leaves its identity out."""

    LEFT_TO_RIGHT = "left_to_right"
    """The leftmost usable place to identity 1, and so on."""

    LIKENESS = "likeness"
    """The pairing of identities and faces whose cosine similarities have the largest sum."""


@dataclass(frozen=True, eq=False)
class Casting:
    """A cast, and how it came about.

    Attributes:
        cast: who is in the picture.
        summaries: one line per member: who was placed where.
        unused: usable places that nobody was assigned to.
        notes: what the user should know: who was left out, what could not be used, who overlaps.
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
    places: Places | None = None,
    assign: Assignment = Assignment.ORDER,
    strengths: Sequence[float] = (),
) -> Casting:
    """Gives each identity a place.

    Every identity gets at most one place and every place at most one identity. Identities without a place are left out
    of the cast, places without an identity stay unused, and both are named in the notes. Without any places everyone
    acts in the whole picture.

    Args:
        identities: the people, in the order that the assignment and the strengths refer to.
        canvas: size of the picture in pixels.
        places: what `find_places` read; None = nobody has a place of their own.
        assign: who gets which place.
        strengths: one per identity, 0-5; empty = all 1.
    Returns:
        The cast, with its members in the order of the identities.
    Raises:
        InvalidInputError: there are no identities or no usable places, the strengths do not fit, or likeness is asked
            for where faces and identities have no recogniser in common.
    """
    if not identities:
        raise InvalidInputError("a cast needs at least one identity; connect one")
    strengths = check_strengths(strengths, len(identities))
    everyone = [CastMember(i, strength=strength) for i, strength in zip(identities, strengths, strict=True)]
    if places is None:
        summaries = tuple(_summary(number, member, "the whole picture") for number, member in enumerate(everyone, 1))
        return Casting(Cast(tuple(everyone), canvas), summaries, notes=_mixing_notes(everyone))
    check_places(places)
    pairs, likeness = _assign(identities, places.places, assign)
    placed = {i: place for i, p in sorted(pairs.items()) if (place := places.places[p]).region}
    if not placed:
        raise InvalidInputError(
            f"the places of all {len(identities)} identities are unusable, only later ones are not; with assign = "
            "order, place 1 belongs to identity 1: reorder them, or choose another assign"
        )
    members = tuple(replace(everyone[i], region=place.region, face_box=place.face_box) for i, place in placed.items())
    cast = Cast(members, canvas)
    alike = {i: f", likeness {likeness[i]:.2f}" if i in likeness else "" for i in placed}
    summaries = [
        _summary(number, member, place.label + alike[i])
        for number, (member, (i, place)) in enumerate(zip(members, placed.items(), strict=True), 1)
    ]
    unused = tuple(place for place in places.places if place.region and place not in placed.values())
    notes = (
        *places.notes,
        *(f"{place.label} is not used: {place.problem}" for place in places.places if not place.region),
        *(f"{place.label} is not used: it has no identity" for place in unused),
        *(
            f"identity {i + 1} ({identity.name}) is left out: it has no place"
            for i, identity in enumerate(identities)
            if i not in placed
        ),
        *(
            f"#{number} {identities[i].name} and {place.label} are hardly alike ({likeness[i]:.2f}): probably two "
            "different people"
            for number, (i, place) in enumerate(placed.items(), 1)
            if likeness.get(i, 1.0) < MIN_LIKENESS
        ),
        *_overlap_notes(cast),
    )
    return Casting(cast, tuple(summaries), unused, notes)


def check_places(places: Places) -> None:
    """Raises InvalidInputError, with the reasons, unless at least one place can be used."""
    if not places.places:
        raise InvalidInputError(
            "the source of the places is connected but holds none: nobody was found or drawn there; add at least one, "
            "or disconnect it to let everyone act in the whole picture"
        )
    if not any(place.region for place in places.places):
        problems = "; ".join(f"{place.label}: {place.problem}" for place in places.places)
        raise InvalidInputError(
            f"no place can be used ({problems}); mend at least one, or disconnect them to let everyone act in the "
            "whole picture"
        )


def parse_strengths(text: str) -> tuple[float, ...]:
    """Strengths from comma-separated numbers; empty text gives none.

    Raises:
        InvalidInputError: a part is not a number.
    """
    if not text.strip():
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInputError(
            f"strengths are {text!r}; write one number per identity, separated by commas, such as 1, 0.8, 1.2"
        ) from error


def check_strengths(strengths: Sequence[float], num_identities: int) -> tuple[float, ...]:
    """The strengths, one per identity; all 1 where none are given.

    Raises:
        InvalidInputError: their number or a value does not fit.
    """
    if not strengths:
        return (1.0,) * num_identities
    if len(strengths) != num_identities:
        raise InvalidInputError(
            f"{len(strengths)} strengths are given for {num_identities} identities; give one each, or none for all 1"
        )
    for number, strength in enumerate(strengths, 1):
        if not (math.isfinite(strength) and 0 <= strength <= MAX_STRENGTH):
            raise InvalidInputError(f"strength {number} is {strength}; it must be from 0 to {MAX_STRENGTH:g}")
    return tuple(strengths)


def _summary(number: int, member: CastMember, where: str) -> str:
    strength = f", strength {member.strength:g}" if member.strength != 1 else ""
    return f"#{number} {member.identity.name}: {where}{strength}"


def _mixing_notes(members: Sequence[CastMember]) -> tuple[str, ...]:
    if len(members) < 2:
        return ()
    return (
        f"{len(members)} people share the whole picture, so their faces will mix; connect boxes, masks, faces or a "
        "skeleton",
    )


def _assign(
    identities: Sequence[Identity], places: Sequence[Place], assign: Assignment
) -> tuple[dict[int, int], dict[int, float]]:
    """Identity -> place by index, and identity -> likeness where it was measured."""
    if assign is Assignment.ORDER:
        return {i: i for i in range(min(len(identities), len(places)))}, {}
    usable = [p for p, place in enumerate(places) if place.region]
    if assign is Assignment.LEFT_TO_RIGHT:
        ordered = sorted(usable, key=lambda p: places[p].box.center)
        return dict(enumerate(ordered[: len(identities)])), {}
    likeness = _likeness(identities, [places[p] for p in usable])
    best = best_assignment(likeness)
    return {i: usable[column] for i, column in best.items()}, {i: float(likeness[i, c]) for i, c in best.items()}


def _likeness(identities: Sequence[Identity], places: Sequence[Place]) -> np.ndarray:
    """Cosine similarities, (num_identities, num_places).

    Raises:
        InvalidInputError: no recogniser saw all of them.
    """
    for place in places:
        if not place.embeddings:
            raise InvalidInputError(
                f"{place.label} does not show who it is, so assign = likeness cannot be used; connect faces that were "
                "found by a face analysis with a recogniser, or assign by order or left_to_right"
            )
    seen_by = [set(person.embeddings) for person in (*identities, *places)]
    common = sorted(set.intersection(*seen_by))
    if not common:
        people = "; ".join(f"{identity.name}: {recogniser_names(identity.embeddings)}" for identity in identities)
        faces = recogniser_names(sorted({key for place in places for key in place.embeddings}))
        raise InvalidInputError(
            f"no recogniser saw both the identities ({people}) and the faces ({faces}), so they cannot be compared; "
            "encode the identities with the face analysis that found the faces, or assign by order or left_to_right"
        )
    people = [_embedding(identity, common[0], "assigning by likeness") for identity in identities]
    return cosine_similarities(np.stack(people), np.stack([place.embeddings[common[0]] for place in places]))


def _embedding(identity: Identity, recogniser: str, needed_by: str) -> np.ndarray:
    return identity.embedding([recogniser], needed_by).detach().cpu().float().numpy()


def _overlap_notes(cast: Cast) -> list[str]:
    longer = max(cast.extent.width, cast.extent.height)
    grid = Extent(
        math.ceil(cast.extent.width * OVERLAP_GRID / longer), math.ceil(cast.extent.height * OVERLAP_GRID / longer)
    )
    weights = _rasterised(cast.members, grid)
    notes = []
    for (a, first), (b, second) in combinations(enumerate(cast.members), 2):
        shared = torch.minimum(weights[a], weights[b]).sum() / torch.minimum(weights[a].sum(), weights[b].sum())
        if shared >= 0.005:
            notes.append(
                f"the regions of #{a + 1} {first.identity.name} and #{b + 1} {second.identity.name} overlap by "
                f"{shared:.0%} of the smaller one: they share the strength there"
            )
    return notes


def _rasterised(members: Sequence[CastMember], extent: Extent) -> Tensor:
    whole = torch.ones(extent.height, extent.width)
    return torch.stack([whole if member.region is None else member.region.rasterise(extent) for member in members])
