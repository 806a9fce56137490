"""Identities in crops: each member of a cast acts in the crops of their own face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional

from ...identity.adapters import IdentityAdapter, stack_tokens
from ...identity.cast import Cast
from ...restoration.face_crops import FaceCrop
from ...shapes import Extent, cell_means
from ..cast.attach import attach_cast, check_adapter_fits
from ..cast.conditioning import EncodedCast, PendingCast, new_cast_key
from ..conditioning import Conditioning, add_cond
from ..unet import cross_attention_layers, unet_of


@dataclass(frozen=True, eq=False, kw_only=True)
class CastInCrops(EncodedCast):
    """An encoded cast whose members act in crops and not in places of one picture.

    Attributes:
        members: (batch,) index of the member that acts in each crop.
        regions: the member's region in its crop, (batch, height, width) in [0, 1].
    """

    members: Tensor
    regions: Tensor

    def weights(self, extent: Extent) -> Tensor:
        """Returns strength times region on a grid, (batch, identities, height, width) float32."""
        regions = cell_means(self.regions.float()[:, None], extent)
        chosen = functional.one_hot(self.members, len(self.tokens)).float()
        return chosen[:, :, None, None] * regions * self.strength


ActingFaces = tuple[CastInCrops, CastInCrops]
"""The identities that act in a batch of crops, as the positive and the negative carry them."""


@dataclass(frozen=True, eq=False)
class FaceIdentities:
    """The identities of a cast, ready to act in crops.

    Attributes:
        adapter: the adapter that made the tokens.
        cast: the people; their places and strengths do not count.
        tokens, null_tokens: for the positive and the negative, (identities, num_tokens, token_dim).
        key: their name in the model and the conditioning.
    """

    adapter: IdentityAdapter
    cast: Cast
    tokens: Tensor
    null_tokens: Tensor
    key: str

    @classmethod
    def encode(cls, adapter: IdentityAdapter, cast: Cast) -> FaceIdentities:
        """Makes the tokens of all members.

        Raises:
            InvalidInputError: an identity does not hold what the adapter reads.
        """
        tokens = stack_tokens([adapter.tokens(member.identity) for member in cast.members])
        null_tokens = stack_tokens([adapter.null_tokens(member.identity) for member in cast.members])
        return cls(adapter, cast, tokens, null_tokens, new_cast_key())

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """Returns a clone of the model that reads these identities. It is unchanged for conditioning without them.

        Raises:
            BaseModelError: the adapter does not fit the model.
        """
        check_adapter_fits(self.adapter, cross_attention_layers(unet_of(model)))
        return attach_cast(model, self.adapter, self.key)

    def in_crops(self, faces: Sequence[FaceCrop], strength: float) -> ActingFaces:
        """Returns the identities of a batch of matched faces, which act inside `identity_mask`.

        Args:
            strength: 1 is as trained.
        """
        positive = CastInCrops(
            tokens=self.tokens,
            cast=self.cast,
            numbers=tuple(range(1, len(self.tokens) + 1)),
            strength=strength,
            members=torch.tensor([face.match.member for face in faces if face.match]),
            regions=torch.stack([face.identity_mask for face in faces]),
        )
        return positive, replace(positive, tokens=self.null_tokens)

    def condition(
        self, positive: Conditioning, negative: Conditioning, acting: ActingFaces
    ) -> tuple[Conditioning, Conditioning]:
        """Lets identities act in the cross attention of a model from `attach`."""
        for_positive, for_negative = acting
        positive = add_cond(positive, self.key, PendingCast(for_positive))
        return positive, add_cond(negative, self.key, PendingCast(for_negative))
