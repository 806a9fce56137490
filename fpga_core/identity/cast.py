"""A cast: named people, each in their own part of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import Box
from ..shapes import Extent
from .identity import Identity
from .regions import Region, share_overlap


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
        whole = torch.ones(extent.height, extent.width)
        regions = [whole if member.region is None else member.region.rasterise(extent) for member in self.members]
        return share_overlap(torch.stack(regions))
