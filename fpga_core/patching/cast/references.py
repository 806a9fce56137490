"""People by reference pictures, for transformers that read them as latents beside the picture's own.

The host puts the tokens of reference latents into the joint attention of every block. Here each person's are seen in
their own region only (`fpga_core.identity.joint_attention`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any

import comfy.utils
import torch
from comfy.conds import CONDConstant
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor, nn

from ...errors import BaseModelError, UnsupportedModeError
from ...identity.cast import Cast
from ...identity.identity import Identity
from ...identity.joint_attention import Share, attend_in_shares, share_attention
from ...shapes import Extent
from ..conditioning import Conditioning, add_cond
from ..families import FAMILIES, TransformerFamily, within_seen
from ..schedule import StepRange
from .conditioning import PlacedCast, new_cast_key, rows_key
from .placed import Call, PlacedPatch, place_people

MAX_PICTURE_PX = 1024 * 1024
"""The pixels of the largest reference picture; larger ones are scaled down, as the host's nodes for edit models do."""

PICTURE_MULTIPLE_PX = 16
"""Reference pictures are cropped to a multiple of a token, which is two latent pixels wide."""


def reading_family(model: ModelPatcher) -> TransformerFamily | None:
    """Returns the family of a model that reads reference pictures; None if it reads none."""
    net = model.get_model_object("diffusion_model")
    family = FAMILIES.get(type(net))
    return family if isinstance(family, TransformerFamily) and family.reads_references(net) else None


def check_reads_references(model: ModelPatcher) -> TransformerFamily:
    """Returns the family of a model that reads reference pictures.

    Raises:
        UnsupportedModeError: it reads none.
    """
    if (family := reading_family(model)) is None:
        raise UnsupportedModeError(
            f"use a model that reads reference pictures (FLUX, FLUX.2, Qwen-Image); {type(model.model).__name__} reads "
            "none"
        )
    return family


def apply_references(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    cast: Cast,
    vae: VAE,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    """Shows a model pictures of the people of a cast, each seen in their own region only.

    Both prompts carry the pictures, as edit models were trained: guidance then acts on the words.

    Args:
        model: a model that reads reference pictures (`reading_family`).
        positive, negative: prompts, which may carry other reference latents.
        cast: the people, who have pictures; they are numbered by their order, as pictures are in prompts.
        vae: the model's autoencoder.
        strength: factor on every member's strength; a member with strength 0 is absent.
        steps: the part of the schedule in which the references are seen.
    Returns:
        A patched clone of the model, and the two conditionings; if nobody acts, the three are returned unchanged.
    Raises:
        UnsupportedModeError: the model reads no reference pictures.
        BaseModelError: the autoencoder belongs to another model.
    """
    check_reads_references(model)
    numbered = sorted(zip(cast.numbers, cast.members, strict=True), key=itemgetter(0))
    members = tuple(member for _, member in numbered if strength * member.strength)
    latents = [encode_pictures(model, vae, member.identity) for member in members]
    acting = replace(cast, members=members)
    return show_latents(model, positive, negative, cast=acting, latents=latents, strength=strength, steps=steps)


def encode_pictures(model: ModelPatcher, vae: VAE, person: Identity) -> tuple[Tensor, ...]:
    """Encodes a person's pictures for a model, each (1, channels, height, width) or with an axis of one frame.

    Raises:
        BaseModelError: the autoencoder belongs to another model.
    """
    latents = tuple(encode_reference(vae, picture) for picture in person.pictures)
    channels = model.model.latent_format.latent_channels
    if any(latent.shape[1] != channels for latent in latents):
        raise BaseModelError(
            f"connect the VAE of the connected model: this one makes latents of {latents[0].shape[1]} channels, but "
            f"the model reads {channels}"
        )
    return latents


def show_latents(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    cast: Cast,
    latents: Sequence[Sequence[Tensor]],
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    """Does the work of `apply_references` on pictures that are encoded.

    Args:
        cast: whoever acts.
        latents: the pictures of each member. Their first axis is 1, or one row for each latent of the run.
    Raises:
        UnsupportedModeError: the model reads no reference pictures.
    """
    family = check_reads_references(model)
    if not cast.members:
        return model, positive, negative
    key, placed = new_cast_key(), PlacedCast(cast=cast, strength=strength)

    def shown(conditioning: Conditioning) -> Conditioning:
        entries: Conditioning = []
        for entry in place_people(conditioning, key, placed):
            text, options = entry
            others = options.get("reference_latents", ())
            everyones = (latent for pictures in latents for latent in pictures)
            with_people = {**options, "reference_latents": [*others, *everyones]}
            entries += add_cond([[text, with_people]], rows_key(key), CONDConstant(len(others)))
        return entries

    counts = tuple(map(len, latents))
    patched = model.clone()
    PlacedPatch(key=key, steps=steps, act=SeenInPlaces(key=key, family=family, num_pictures=counts)).attach(patched)
    return patched, shown(positive), shown(negative)


def encode_reference(vae: VAE, picture: Tensor) -> Tensor:
    """Encodes a reference picture, (height, width, 3), at its own size if that is not too large."""
    height, width = picture.shape[:2]
    scale = min(1.0, math.sqrt(MAX_PICTURE_PX / (height * width)))
    sides = (max(round(side * scale) // PICTURE_MULTIPLE_PX, 1) * PICTURE_MULTIPLE_PX for side in (width, height))
    pixels = comfy.utils.common_upscale(picture.movedim(-1, 0)[None], *sides, "area", "center")
    return vae.encode(pixels.movedim(1, -1))


@dataclass(frozen=True, kw_only=True)
class SeenInPlaces:
    """Confines the references of a call to their regions.

    Attributes:
        key: name of the cast in the conditioning.
        family: what is known of the model.
        num_pictures: pictures of each member of the cast.
    """

    key: str
    family: TransformerFamily
    num_pictures: tuple[int, ...]

    def __call__(
        self, call: Call, model: BaseModel, weights: Tensor, options: dict[str, Any], conds: dict[str, Any]
    ) -> Tensor:
        in_places = partial(
            ReferencesInPlaces,
            family=self.family,
            net=model.diffusion_model,
            weights=weights,
            first=conds.pop(rows_key(self.key)),
            num_pictures=self.num_pictures,
        )
        options["optimized_attention_override"] = within_seen(options, in_places)
        return call()


@dataclass(frozen=True, eq=False)
class ReferencesInPlaces:
    """The host's override of attention in one call: each person's references are seen in their own region only.

    Attributes:
        previous: another pack's override, which computes the attention then.
        family: what is known of the network.
        net: the network.
        weights: strength times region, (batch, people, height, width) of the latent.
        first: number of the cast's first picture among all references.
        num_pictures: pictures of each person.
    """

    previous: Callable[..., Tensor] | None
    _: KW_ONLY
    family: TransformerFamily
    net: nn.Module
    weights: Tensor
    first: int
    num_pictures: tuple[int, ...]
    kept: dict[int, tuple[Share, ...]] = field(default_factory=dict)

    def __call__(
        self,
        attention: Callable[..., Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        **named: Any,  # noqa: ANN401
    ) -> Tensor:
        call, attends = named["transformer_options"], attention
        if self.previous is not None:
            attends = partial(self.previous, attention)
        counts = call.get("reference_image_num_tokens")
        if call.get("block_type") not in self.family.stacks or not counts:
            return attends(q, k, v, heads, mask=mask, **named)
        axis = 2 if named.get("skip_reshape") else 1
        num_tokens = q.shape[axis]
        if num_tokens not in self.kept:  # all layers but those that refine the text are alike
            self.kept[num_tokens] = self._shares(num_tokens, counts, q.device)

        def attend(queries: Tensor, keys: Tensor) -> Tensor:
            chosen = (q.index_select(axis, queries), k.index_select(axis, keys), v.index_select(axis, keys))
            return attends(*chosen, heads, mask=_chosen(mask, queries, keys), **named)

        return attend_in_shares(self.kept[num_tokens], attend, num_tokens=num_tokens)

    def _shares(self, num_tokens: int, counts: list[int], device: torch.device) -> tuple[Share, ...]:
        latent = Extent(self.weights.shape[-1], self.weights.shape[-2])
        picture = self.family.picture_tokens(self.net, latent, num_tokens=num_tokens, num_references=sum(counts))
        edge = picture.stop + sum(counts[: self.first])
        references: list[tuple[int, int]] = []
        number = self.first
        for pictures in self.num_pictures:
            start, edge = edge, edge + sum(counts[number : number + pictures])
            references.append((start, edge))
            number += pictures
        on_tokens = self.family.token_means(self.net, self.weights)
        shares = share_attention(on_tokens, num_tokens=num_tokens, first=picture.start, references=references)
        return tuple(Share(*(part.to(device) for part in (s.queries, s.keys, s.weight))) for s in shares)


def _chosen(mask: Tensor | None, queries: Tensor, keys: Tensor) -> Tensor | None:
    """Returns the part of a mask, (..., queries or 1, keys), that is for some tokens."""
    if mask is None:
        return None
    mask = mask.index_select(-1, keys)
    return mask if mask.shape[-2] == 1 else mask.index_select(-2, queries)
