"""Attaches a cast to a ComfyUI model: the callbacks during sampling, and the LoRA of an adapter.

The conditioning carries the people's tokens and regions. When the latent size of a run is known, the regions are drawn
on it. In each call of the model, the attention slots are claimed for the identities that this call carries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import comfy.lora
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...block_slots import Attention, BlockSlot
from ...checkpoints import hash_state_dict
from ...errors import BaseModelError
from ...identity.adapters import IdentityAdapter
from ...identity.layer_emphasis import LayerEmphasis
from ...shapes import Extent
from ..conditioning import check_areas, check_latent
from ..repcontrolnet.carried import applied_branches, carried_branches
from ..schedule import StepRange
from ..unet import UNET_PREFIX
from .acting import let_identities_act
from .attention import CastRun
from .conditioning import is_cast_key, resolve_casts, rows_key, warn_of_prompts_without_cast, weights_key

LORAS_ATTACHMENT = "fpga_identity_loras"
"""The attachment that records the adapters whose LoRA a model carries."""

logger = logging.getLogger(__name__)


def attach_cast(
    model: ModelPatcher,
    adapter: IdentityAdapter,
    key: str,
    *,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
    emphasis: LayerEmphasis = LayerEmphasis.UNIFORM,
    is_in_prompts: bool = True,
) -> ModelPatcher:
    """Returns a clone of a model in which casts act that conditionings carry under a key.

    Without such a cast, the model is unchanged.

    Args:
        model: a model that fits the adapter (`check_adapter_fits`).
        adapter: the adapter that made the tokens.
        key: a key from `new_cast_key`.
        steps: the part of the schedule in which the identities act. An adapter's LoRA acts in every step, as published.
        emphasis: how the strength varies over the layers.
        is_in_prompts: whether every run's prompts should carry the cast; if they do not, the user is warned.
    Raises:
        BaseModelError: the model does not have a layer that the adapter's LoRA changes.
    """
    warn_of_missing_branch(model, adapter)
    patch = CastPatch(key=key, adapter=adapter, steps=steps, emphasis=emphasis, is_in_prompts=is_in_prompts)
    patched = model.clone()
    add_lora(patched, adapter)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, patch.outer_sample)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, patch.apply_model)
    return patched


def carries_cast(model: ModelPatcher) -> bool:
    """Returns whether a cast has been attached to a model."""
    return any(is_cast_key(key) for key in model.wrappers.get(WrappersMP.OUTER_SAMPLE, {}))


@dataclass(frozen=True, kw_only=True)
class CastPatch:
    """One application of a cast to a model, with the functions that the host calls during sampling.

    Attributes: the arguments of `attach_cast`.
    """

    key: str
    adapter: IdentityAdapter
    steps: StepRange
    emphasis: LayerEmphasis
    is_in_prompts: bool

    def outer_sample(self, executor: WrapperExecutor, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Draws the regions on the run's latent, before the host crops or batches any conditioning."""
        guider = cast(CFGGuider, executor.class_obj)
        check_latent(noise, guider.model_patcher.model.latent_format.latent_channels)
        check_areas(guider.conds)
        if self.is_in_prompts:
            warn_of_prompts_without_cast(guider.conds, self.key)
        latent = Extent(noise.shape[-1], noise.shape[-2])
        guider.conds, parts = resolve_casts(guider.conds, self.key, latent)
        for part in parts:
            part.check_fits(latent)
        if parts:
            guider.model_options["transformer_options"][self.key] = CastRun(
                has_own_projections=self.adapter.projections is not None,
                parts=parts,
                emphasis=self.emphasis,
                is_constant=has_constant_weights(guider),
            )
        return executor(noise, *args, **kwargs)

    def apply_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: Mapping[str, Any] = MappingProxyType({}),
        **conds: Any,  # noqa: ANN401
    ) -> Tensor:
        """Claims the attention slots for the identities in this call.

        This is not a DIFFUSION_MODEL wrapper, because here the regions still have full precision and are on the CPU, so
        that no GPU waits while the queries in a region are found. A compiled model is also entered only after this.
        """
        model = cast(BaseModel, executor.class_obj)
        rows, weights = conds.pop(rows_key(self.key), None), conds.pop(weights_key(self.key), None)
        acts = self.steps.is_whole_run or self.steps.contains(model.model_sampling, t)
        run: CastRun | None = transformer_options.get(self.key)
        transformer_options = without_names(transformer_options, self.key)
        if rows is not None and run is not None and acts:
            transformer_options = let_identities_act(
                transformer_options,
                model.diffusion_model,
                run=run,
                call=run.call(rows, weights, x),
                x=x,
                dtype=model.get_dtype_inference(),
            )
        inputs = (c_concat, c_crossattn, control)  # wrappers of other packs may read them by position
        return executor(x, t, *inputs, transformer_options, **conds)


def without_names(transformer_options: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns the options of a call without the name of a cast, to which a compiled model would be bound."""
    wrappers = {
        kind: {name: functions for name, functions in named.items() if name != key}
        for kind, named in transformer_options.get("wrappers", {}).items()
    }
    return {name: value for name, value in transformer_options.items() if name != key} | {"wrappers": wrappers}


def has_constant_weights(guider: CFGGuider) -> bool:
    """Returns whether a run's weights are the same in every call. Live branches and scheduled LoRAs change them."""
    is_scheduled = any("hooks" in entry for entries in guider.conds.values() for entry in entries)
    return not is_scheduled and all(branch.form == "folded" for branch in applied_branches(guider.model_patcher))


def check_adapter_fits(adapter: IdentityAdapter, layers: Mapping[BlockSlot, Attention], network: str = "model") -> None:
    """Raises unless an adapter's widths and layers match those of a network.

    Args:
        adapter: an adapter that shares the network's projections, or has its own.
        layers: the network's cross attentions.
        network: the network's name in messages.
    Raises:
        BaseModelError: the adapter was made for another architecture.
    """
    if adapter.projections is None:
        context_dim = next(iter(layers.values())).to_k.in_features
        if adapter.token_dim != context_dim:
            raise BaseModelError(
                f"the identity adapter '{adapter.name}' ({adapter.base}) makes tokens {adapter.token_dim} wide and "
                f"shares the {network}'s projections, but these read {context_dim}; connect a {network} of the "
                "adapter's architecture"
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
    """Logs a warning if an adapter was trained together with a RepControlNet that the model does not carry."""
    carried = {branch.branch_hash for branch in carried_branches(model)}
    if adapter.branch_hash is not None and adapter.branch_hash not in carried:
        logger.warning(
            "the identity adapter '%s' was trained with the RepControlNet branch %s, which this model does not carry; "
            "connect Apply RepControlNet with that file before Apply Cast, or expect less likeness",
            adapter.name,
            adapter.branch_hash[:12],
        )


def add_lora(model: ModelPatcher, adapter: IdentityAdapter) -> None:
    """Adds an adapter's LoRA to a model's patches once, at full weight, as published.

    Several casts on one model can share an adapter, for example each for a part of the steps. Its LoRA still counts
    once.

    Raises:
        BaseModelError: the model does not have a layer that the LoRA changes.
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
            f"the model does not have {len(refused)} of the {len(patches)} layers that the LoRA in '{adapter.name}' "
            f"changes, for example {min(refused)}; connect a model of the adapter's architecture ({adapter.base})"
        )
    model.set_attachments(LORAS_ATTACHMENT, carried | {lora})
