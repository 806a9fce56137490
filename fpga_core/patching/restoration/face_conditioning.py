"""What a face's crop is generated under: the picture's prompt without places, its own landmarks, its own identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from comfy.controlnet import ControlNet
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...errors import InvalidInputError, PatchConflictError
from ...identity.adapters import IdentityAdapter, stack_tokens
from ...identity.cast import Cast
from ...repcontrolnet.branch import RepControlNet
from ...shapes import Extent, cell_means
from ..cast.attach import attach_cast, carries_cast, check_adapter_fits
from ..cast.conditioning import EncodedCast, PendingCast, is_cast_key, new_cast_key
from ..cast.controlnet import IdentityControlNet
from ..conditioning import Conditioning, add_cond, add_control, as_hint
from ..repcontrolnet.apply import add_hint, apply_branch
from ..repcontrolnet.fold import applied_branches
from ..unet import cross_attention_layers, unet_of

WHOLE_PICTURE_OPTIONS = (
    "control", "control_apply_to_uncond", "gligen", "area", "strength", "set_area_to_bounds", "mask", "mask_strength",
    "concat_latent_image", "concat_mask", "noise_mask", "reference_latents",
)  # fmt: skip
"""What nodes add to a conditioning that is tied to places of the picture, and would hit a crop at the wrong place."""


def check_model_is_plain(model: ModelPatcher) -> None:
    """Refuses a model that already carries a RepControlNet or a cast: both would act on the crops, at the wrong place.

    Raises:
        PatchConflictError: says which, and which earlier model to connect.
    """
    for branch in applied_branches(model):
        raise PatchConflictError(
            f"the connected model carries the RepControlNet '{branch.name}', whose condition image shows the whole "
            "picture: connect the model from before Apply RepControlNet, and the RepControlNet itself to this node's "
            "repcontrolnet"
        )
    if carries_cast(model):
        raise PatchConflictError(
            "the connected model carries a cast, whose regions are those of the whole picture: connect the model from "
            "before Apply Cast, and the adapter and the cast themselves to this node"
        )


def for_crops(conditioning: Conditioning) -> Conditioning:
    """A picture's conditioning without what is tied to places of the picture.

    Prompts that are limited to an area or a mask are left out, unless there are no others.

    Args:
        conditioning: of the whole picture; not changed.
    """
    everywhere = [entry for entry in conditioning if "area" not in entry[1] and "mask" not in entry[1]]
    return [[text, _without_places(options)] for text, options in everywhere or conditioning]


def _without_places(options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in options.items() if name not in WHOLE_PICTURE_OPTIONS}
    if "model_conds" in kept:
        conds = kept["model_conds"].items()
        kept["model_conds"] = {name: value for name, value in conds if not is_cast_key(name)}
    return kept


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceTokens(EncodedCast):
    """A cast whose members act in crops rather than in places of one picture.

    Attributes:
        people: (batch,) which member acts in each crop.
        regions: where in its crop, (batch, height, width) in [0, 1].
    """

    people: Tensor
    regions: Tensor

    def weights(self, extent: Extent) -> Tensor:
        """Strength times region on a grid, (batch, identities, height, width) float32."""
        regions = cell_means(self.regions.float()[:, None], extent)
        chosen = F.one_hot(self.people, len(self.tokens)).float()
        return chosen[:, :, None, None] * regions * self.strength


@dataclass(frozen=True, eq=False)
class ActingFaces:
    """The identities that act in a batch of crops: what positive and negative carry, and the adapter that made it."""

    adapter: IdentityAdapter
    positive: FaceTokens
    negative: FaceTokens


@dataclass(frozen=True, eq=False)
class FaceIdentities:
    """A cast whose members each act in the crops of their own face.

    Attributes:
        adapter: made the tokens.
        cast: who there is; places and strengths of the members do not count.
        tokens, null_tokens: for the positive and the negative, (identities, num_tokens, token_dim).
        key: names the patch in a model's options.
    """

    adapter: IdentityAdapter
    cast: Cast
    tokens: Tensor
    null_tokens: Tensor
    key: str

    @classmethod
    def encode(cls, adapter: IdentityAdapter, cast: Cast) -> FaceIdentities:
        """Makes everyone's tokens.

        Raises:
            InvalidInputError: an identity lacks what the adapter reads.
        """
        tokens = stack_tokens([adapter.tokens(member.identity) for member in cast.members])
        null_tokens = stack_tokens([adapter.null_tokens(member.identity) for member in cast.members])
        return cls(adapter, cast, tokens, null_tokens, new_cast_key())

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """A clone of the model that listens to these identities; it acts as before where a conditioning carries none.

        Raises:
            BaseModelError: the adapter does not fit the model.
        """
        check_adapter_fits(self.adapter, cross_attention_layers(unet_of(model)))
        return attach_cast(model, self.adapter, self.key)

    def in_crops(self, people: Sequence[int], regions: Tensor, strength: float) -> ActingFaces:
        """The identities of a batch of crops.

        Args:
            people: which member, for each crop.
            regions: where it acts in its crop, (batch, height, width) in [0, 1].
            strength: 1 = as trained.
        """
        numbers, owners = tuple(range(1, len(self.tokens) + 1)), torch.tensor(people)
        positive = FaceTokens(
            tokens=self.tokens, cast=self.cast, numbers=numbers, strength=strength, people=owners, regions=regions
        )
        return ActingFaces(self.adapter, positive, replace(positive, tokens=self.null_tokens))

    def condition(
        self, positive: Conditioning, negative: Conditioning, acting: ActingFaces
    ) -> tuple[Conditioning, Conditioning]:
        """Lets the identities act in the cross attention of a model that `attach` gave."""
        positive = add_cond(positive, self.key, PendingCast(acting.positive))
        return positive, add_cond(negative, self.key, PendingCast(acting.negative))


class FaceControl(Protocol):
    """Steers each face by the drawing of its landmarks."""

    carries_identities: ClassVar[bool]
    """Whether identities can act inside the control."""

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """The model with what the control changes on it; done once for all batches of faces."""
        ...

    def condition(
        self,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """Adds condition images, (faces, height, width, 3) in [0, 1], one for each face of a batch.

        Args:
            acting: identities that act inside the control, if it carries them.
        """
        ...


@dataclass(frozen=True, eq=False)
class RepControlNetFaces:
    """Landmarks through a RepControlNet: its branch goes into the model, its adapter reads the drawings."""

    branch: RepControlNet
    strength: float = 1.0
    carries_identities: ClassVar[bool] = False  # it has no cross attention of its own

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        return apply_branch(model, self.branch)[0]

    def condition(
        self,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        return add_hint(positive, negative, branch=self.branch, image=hints, strength=self.strength)


@dataclass(frozen=True, eq=False)
class ControlNetFaces:
    """Landmarks through an ordinary ControlNet."""

    control_net: ControlNet
    vae: VAE
    strength: float = 1.0
    carries_identities: ClassVar[bool] = True

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        return model

    def condition(
        self,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        if self.strength == 0:
            return positive, negative
        control = self.control_net.copy()
        if acting is not None:
            reading = IdentityControlNet.of(self.control_net, acting.adapter)
            control, positive, negative = reading.with_cast((acting.positive, acting.negative), positive, negative)
        control.set_cond_hint(as_hint(hints), self.strength, (0.0, 1.0), vae=self.vae)
        return add_control(positive, negative, control)


def choose_control(
    branch: RepControlNet | None, control_net: ControlNet | None, vae: VAE, strength: float
) -> FaceControl | None:
    """The control that is connected, if any.

    Raises:
        InvalidInputError: both are.
    """
    if branch is not None and control_net is not None:
        raise InvalidInputError("repcontrolnet and control_net are both connected; landmarks go through one of them")
    if branch is not None:
        return RepControlNetFaces(branch, strength)
    return None if control_net is None else ControlNetFaces(control_net, vae, strength)
