"""How several packs share the one slot that each cross-attention layer of a UNet has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...block_slots import BlockSlot

AttentionCall = Callable[..., Tensor]
"""What stands in an attention slot: `(q, k, v, extra_options)` -> the output before `to_out`."""


def claim_slots(
    transformer_options: Mapping[str, Any],
    slots: Iterable[BlockSlot],
    attach: Callable[[AttentionCall, BlockSlot], AttentionCall],
) -> dict[str, Any]:
    """Puts an attention of ours in front of whatever stands in the slots, for one call of the model.

    The host gives each layer's slot to whoever wrote it last, under `(block, number, index)` or, if that is free,
    under `(block, number)`. Claiming while the model is called, when every other node has had its turn, wraps their
    attention in whichever order the nodes were connected, and leaves nothing behind on the model.

    Args:
        transformer_options: of this call; not changed.
        slots: the layers to claim.
        attach: makes the attention of a slot from the one that stands there.
    Returns:
        Options for the call, equal to `transformer_options` but for the claimed slots.
    """
    replacements = transformer_options.get("patches_replace", {})
    attn2 = dict(replacements.get("attn2", {}))
    for slot in slots:
        keys = (tuple(slot), (slot.block, slot.number))
        standing = next((attn2[key] for key in keys if key in attn2), host_attention)
        attn2[keys[0]] = attach(standing, slot)
    return {**transformer_options, "patches_replace": {**replacements, "attn2": attn2}}


def host_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
    """What the host computes if nothing stands in the slot, through the same kernel."""
    precision: torch.dtype | None = extra_options["attn_precision"]
    return optimized_attention(
        q, k, v, extra_options["n_heads"], attn_precision=precision, transformer_options=extra_options
    )
