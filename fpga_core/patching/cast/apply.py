"""Mask Guided Multi-ID Cross Attention on a ComfyUI model: a cast of people, each in their own place."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast
from ...identity.layer_emphasis import LayerEmphasis
from ..conditioning import Conditioning, add_cond, check_text_width
from ..schedule import StepRange
from ..unet import cross_attention_layers, unet_of
from .attach import attach_cast, check_adapter_fits
from .conditioning import PendingCast, new_cast_key
from .encoding import encode_cast


def apply_cast(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    adapter: IdentityAdapter,
    cast: Cast,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
    emphasis: LayerEmphasis = LayerEmphasis.UNIFORM,
) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    """Applies a cast to a model: each person acts in their own region, in every cross-attention layer.

    Args:
        model: a UNet model of the adapter's architecture.
        positive: receives the people's tokens.
        negative: receives the adapter's negative tokens, with the same regions.
        adapter: makes the tokens, and has its own projections or shares those of the model.
        cast: the people and their regions; a member with strength 0 is absent.
        strength: factor on every member's strength; 0 does nothing.
        steps: the part of the schedule in which the identities act. An adapter's LoRA acts in every step, as published.
        emphasis: how the strength varies over the layers.
    Returns:
        A patched clone of the model, and the two conditionings; if nobody acts, the three are returned unchanged.
    Raises:
        BaseModelError: the adapter or a prompt does not fit the model; nothing is patched.
        UnsupportedModeError: the model is not a UNet.
        InvalidInputError: an identity does not hold what the adapter reads, or the strength is not finite.
    Source: FPGA Eq. 1 and section 3.1.
    """
    layers = cross_attention_layers(unet_of(model))
    check_adapter_fits(adapter, layers)
    check_text_width(next(iter(layers.values())).to_k.in_features, positive, negative)
    encoded = encode_cast(adapter, cast, strength)
    if encoded is None:
        return model, positive, negative
    key = new_cast_key()
    patched = attach_cast(model, adapter, key, steps=steps, emphasis=emphasis)
    for_positive, for_negative = encoded
    positive = add_cond(positive, key, PendingCast(for_positive))
    return patched, positive, add_cond(negative, key, PendingCast(for_negative))
