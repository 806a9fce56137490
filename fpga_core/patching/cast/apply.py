"""Mask Guided Multi-ID Cross Attention on a ComfyUI model: a cast of people, each in their own place.

The conditioning carries the people's tokens and regions. When a run's latent size is known the regions are drawn on it,
and in each call of the model the attention slots are claimed for the identities that this call carries.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import comfy.lora
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...block_slots import Attention, BlockSlot
from ...checkpoints import hash_state_dict
from ...errors import BaseModelError, InvalidInputError
from ...identity.adapters import IdentityAdapter, stack_tokens
from ...identity.cast import Cast, CastMember
from ...identity.layer_emphasis import LayerEmphasis
from ...identity.regions import Region
from ...shapes import Extent
from ..conditioning import Conditioning, add_cond
from ..repcontrolnet.fold import applied_branches
from ..schedule import StepRange
from ..unet import UNET_PREFIX, cross_attention_layers, unet_of
from .attention import CastRun, IdentityAttention
from .conditioning import CastTokens, PendingCast, resolve_casts, rows_key, weights_key
from .slots import claim_slots

LORAS_ATTACHMENT = "fpga_identity_loras"
"""A model's memory of the adapters whose LoRA it carries."""

logger = logging.getLogger(__name__)


def apply_cast(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    adapter: IdentityAdapter,
    cast: Cast,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
    emphasis: LayerEmphasis = LayerEmphasis.UNIFORM,
) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    """Lets each person of a cast act in their own region, in every cross-attention layer.

    Args:
        model: a UNet model of the adapter's architecture.
        positive: gets the people's tokens.
        negative: gets what the adapter's negative carries, with the same regions.
        adapter: makes the tokens, and holds its own projections or shares the model's.
        cast: who acts where; a member with strength 0 is absent.
        strength: factor on every member's strength; 0 = nothing is done.
        steps: the part of the schedule in which the identities act. An adapter's LoRA acts in every step, as published.
        emphasis: how the strength varies over the layers.
    Returns:
        A patched clone of the model, and the two conditionings; with nobody in the cast, the three as they came.
    Raises:
        BaseModelError: the adapter does not fit the model; nothing is patched.
        UnsupportedModeError: the model is no UNet.
        InvalidInputError: an identity lacks what the adapter reads, or the strength is not finite.
    Source: FPGA Eq. 1 and section 3.1.
    """
    layers = cross_attention_layers(unet_of(model))
    check_adapter_fits(adapter, layers)
    if (acting := encode_cast(adapter, cast, strength)) is None:
        return model, positive, negative
    carried, carried_by_negative = acting
    warn_of_missing_branch(model, adapter)
    patch = CastPatch(f"fpga_cast_{uuid.uuid4().hex}", adapter, steps, emphasis)
    patched = model.clone()
    add_lora(patched, adapter)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, patch.key, patch.outer_sample)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, patch.key, patch.apply_model)
    positive = add_cond(positive, patch.key, PendingCast(carried))
    return patched, positive, add_cond(negative, patch.key, PendingCast(carried_by_negative))


@dataclass(frozen=True)
class CastPatch:
    """One application of a cast to a model: what the host calls while sampling."""

    key: str
    adapter: IdentityAdapter
    steps: StepRange
    emphasis: LayerEmphasis

    def outer_sample(self, executor: WrapperExecutor, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Draws the regions on the run's latent, before the host crops or batches any conditioning."""
        guider = executor.class_obj
        latent = Extent(noise.shape[-1], noise.shape[-2])
        guider.conds, parts = resolve_casts(guider.conds, self.key, latent)
        if parts:
            run = CastRun(self.adapter.projections, parts, self.emphasis, has_constant_weights(guider))
            guider.model_options["transformer_options"][self.key] = run
        return executor(noise, *args, **kwargs)

    def apply_model(
        self, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None, control: dict | None = None,
        transformer_options: Mapping[str, Any] = MappingProxyType({}), **conds: Any,  # noqa: ANN401
    ) -> Tensor:  # fmt: skip
        """Claims the attention slots for the identities in this call.

        Here, and not in a DIFFUSION_MODEL wrapper, the regions still have full precision and are on the CPU, so that
        finding the queries in a region makes no GPU wait; and a compiled model is entered after this.
        """
        model: BaseModel = executor.class_obj
        rows, weights = conds.pop(rows_key(self.key), None), conds.pop(weights_key(self.key), None)
        acts = self.steps.is_whole_run or self.steps.contains(model.model_sampling, t)
        if rows is not None and acts:
            layers = cross_attention_layers(model.diffusion_model)
            run: CastRun = transformer_options[self.key]
            people = run.people(rows, weights, x)
            attach = partial(IdentityAttention, run=run, people=people, layers=layers)
            transformer_options = claim_slots(transformer_options, layers, attach)
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)


def has_constant_weights(guider: CFGGuider) -> bool:
    """Whether a run's weights are the same in every call: live branches and scheduled LoRAs change them."""
    is_scheduled = any("hooks" in entry for entries in guider.conds.values() for entry in entries)
    return not is_scheduled and all(branch.form == "folded" for branch in applied_branches(guider.model_patcher))


def encode_cast(adapter: IdentityAdapter, cast: Cast, strength: float) -> tuple[CastTokens, CastTokens] | None:
    """Makes the tokens of everyone who acts, in an order that does not depend on the cast's.

    Sums of floating point numbers depend on their order: in a canonical one, permuting the cast changes no bit. A
    member that is listed twice with the same region and strength is one member.

    Returns:
        What the positive and the negative carry; None where nobody acts.
    Raises:
        InvalidInputError: an identity lacks what the adapter reads, or strength or tokens are not finite.
    """
    if not math.isfinite(strength):
        raise InvalidInputError(f"strength is {strength}; give a finite number, 1 is as trained")
    acting: dict[tuple, tuple[int, CastMember, Tensor]] = {}
    for number, member in enumerate(cast.members, start=1):
        if strength and member.strength:
            tokens = adapter.tokens(member.identity)
            if not tokens.isfinite().all():
                raise InvalidInputError(
                    f"the tokens that '{adapter.name}' makes of '{member.identity.name}' are not finite; its file is "
                    "probably damaged: download it again"
                )
            acting.setdefault(_fingerprint(member, tokens), (number, member, tokens))
    if not acting:
        return None
    numbers, members, tokens = zip(*(acting[key] for key in sorted(acting)), strict=True)
    null_tokens = [adapter.null_tokens(member.identity) for member in members]
    cast = replace(cast, members=members)
    return (
        CastTokens(stack_tokens(tokens), cast, numbers, strength),
        CastTokens(stack_tokens(null_tokens), cast, numbers, strength),
    )


def _fingerprint(member: CastMember, tokens: Tensor) -> tuple[bytes, str, float]:
    region = "" if member.region is None else _region_fingerprint(member.region)
    return sha256(tokens.contiguous().numpy().tobytes()).digest(), region, member.strength


def _region_fingerprint(region: Region) -> str:
    mask = "" if region.mask is None else sha256(region.mask.contiguous().numpy().tobytes()).hexdigest()
    shape = () if region.mask is None else tuple(region.mask.shape)
    return f"{region.box} {region.feather} {shape} {mask}"


def check_adapter_fits(adapter: IdentityAdapter, layers: dict[BlockSlot, Attention], network: str = "model") -> None:
    """Raises where an adapter's widths or layers are not those of a network.

    Args:
        layers: the network's cross attentions.
        network: what to call it.
    Raises:
        BaseModelError: the adapter was made for another architecture.
    """
    if adapter.projections is None:
        context_dim = next(iter(layers.values())).to_k.in_features
        if adapter.token_dim != context_dim:
            raise BaseModelError(
                f"the identity adapter '{adapter.name}' ({adapter.base}) makes tokens {adapter.token_dim} wide and "
                f"shares the {network}'s projections, which read {context_dim}; connect a {network} of the adapter's "
                "architecture"
            )
        return
    widths = {slot: attention.to_q.out_features for slot, attention in layers.items()}
    projected = {slot: projection.key.shape[0] for slot, projection in adapter.projections.items()}
    unlike = {slot for slot in widths.keys() | projected.keys() if widths.get(slot) != projected.get(slot)}
    if unlike:
        slot = min(unlike)
        raise BaseModelError(
            f"the identity adapter '{adapter.name}' ({adapter.base}) differs from the {network} in {len(unlike)} of "
            f"{len(widths)} cross-attention layers; {slot.block} block {slot.number}.{slot.index} is "
            f"{widths.get(slot, 'absent')} in the {network} and {projected.get(slot, 'absent')} in the adapter: "
            f"connect a {network} of the adapter's architecture"
        )


def warn_of_missing_branch(model: ModelPatcher, adapter: IdentityAdapter) -> None:
    """Says so where an adapter was trained together with a RepControlNet that the model does not carry."""
    carried = {branch.branch_hash for branch in applied_branches(model)}
    if adapter.branch_hash is not None and adapter.branch_hash not in carried:
        logger.warning(
            "the identity adapter '%s' was trained with the RepControlNet branch %s, which this model does not carry: "
            "wire Apply RepControlNet with that file before Apply Cast, or expect a weaker likeness",
            adapter.name, adapter.branch_hash[:12],
        )  # fmt: skip


def add_lora(model: ModelPatcher, adapter: IdentityAdapter) -> None:
    """Adds the LoRA that belongs to an adapter to a model's patches, as published: at full weight, and once.

    Several casts on one model may share an adapter, each for a part of the steps, say: its LoRA still counts once.

    Raises:
        BaseModelError: the model lacks a layer that the LoRA changes.
    """
    if adapter.lora is None:
        return
    carried: frozenset[str] = model.get_attachment(LORAS_ATTACHMENT) or frozenset()
    first = min(adapter.lora)
    lora = hash_state_dict({f"{first}.{name}": weight for name, weight in adapter.lora[first]._asdict().items()})
    if lora in carried:
        return
    layers = {UNET_PREFIX + path: f"{UNET_PREFIX}{path}.weight" for path in adapter.lora}
    weights = {
        f"{UNET_PREFIX}{path}.{name}.weight": weight
        for path, low_rank in adapter.lora.items()
        for name, weight in (("lora_up", low_rank.up), ("lora_down", low_rank.down))
    }
    patches = comfy.lora.load_lora(weights, layers)
    if refused := patches.keys() - set(model.add_patches(patches)):
        raise BaseModelError(
            f"the model lacks {len(refused)} of the {len(patches)} layers that the LoRA in '{adapter.name}' changes, "
            f"for instance {min(refused)}; connect a model of the adapter's architecture ({adapter.base})"
        )
    model.set_attachments(LORAS_ATTACHMENT, carried | {lora})
