"""A cast: named people, each in their own part of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError
from ..faces.likeness import Portrait
from ..geometry import Box
from ..shapes import Extent
from .identity import Identity
from .regions import Region, share_overlap


@dataclass(frozen=True, eq=False)
class CastMember:
    """One person of a cast.

    Attributes:
        identity: who it is.
        region: where the identity acts; None is the whole picture.
        face_box: where the face is meant to be, not grown, fractions of the picture; None if only a region is known.
        strength: how strongly the identity acts; 1 is as trained, and 0 not at all.
        number: the person's number for the user, from 1; 0 takes that of the place in the cast.
    """

    identity: Identity
    region: Region | None = None
    face_box: Box | None = None
    strength: float = 1.0
    number: int = 0


@dataclass(frozen=True, eq=False)
class Cast:
    """The people of a picture, and the size in pixels of the canvas that they were placed on."""

    members: tuple[CastMember, ...]
    extent: Extent

    @property
    def numbers(self) -> tuple[int, ...]:
        """The members' numbers for the user. They keep them if others are left out or the order changes."""
        return tuple(member.number or place for place, member in enumerate(self.members, 1))

    def rasterise(self, extent: Extent) -> Tensor:
        """The members' regions on a grid; regions that overlap share their cells.

        Args:
            extent: size of the grid: picture, latent, or the tokens of an attention layer.
        Returns:
            (num_members, height, width) float32 in [0, 1], summing to at most 1; strengths are not applied.
        """
        return share_overlap(self.rasterise_alone(extent))

    def rasterise_alone(self, extent: Extent) -> Tensor:
        """Each member's region on a grid, as if nobody else were there; as `rasterise` otherwise."""
        whole = torch.ones(extent.height, extent.width)
        regions = (member.region for member in self.members)
        return torch.stack([whole if region is None else region.rasterise(extent) for region in regions])

    def portraits(self, recogniser: str | None) -> tuple[Portrait, ...]:
        """Returns each member as a recogniser knows them, to find them again in a picture.

        Raises:
            InvalidInputError: there is no recogniser, or a member was not encoded with it.
        """
        if recogniser is None:
            raise InvalidInputError(
                "the face analysis has no recogniser, so it cannot tell people apart; load a pack that has one, such "
                "as buffalo_l"
            )
        return tuple(
            Portrait(
                member.identity.name,
                member.identity.embedding_array(recogniser, "scoring a cast"),
                face_box=member.face_box,
                number=number,
            )
            for number, member in zip(self.numbers, self.members, strict=True)
        )


def as_cast(people: Cast | Identity) -> Cast:
    """Returns a cast as it is, and one identity as a cast of that person in the whole picture."""
    return people if isinstance(people, Cast) else Cast((CastMember(people),), Extent(1, 1))
