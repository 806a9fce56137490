"""Shares the single slot of each cross-attention layer of a UNet with other packs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...block_slots import BlockSlot

AttentionCall = Callable[..., Tensor]
"""The content of an attention slot: `(q, k, v, extra_options)` -> the output before `to_out`."""


def claim_slots(
    transformer_options: Mapping[str, Any],
    slots: Iterable[BlockSlot],
    attach: Callable[[AttentionCall, BlockSlot], AttentionCall],
) -> dict[str, Any]:
    """Wraps the attention in the slots with one of ours, for one call of the model.

    The host uses the last attention that was written to a layer's slot, under `(block, number, index)` or, if that is
    free, under `(block, number)`. The slots are claimed while the model is called, after all other nodes. This wraps
    their attention in any order of the nodes, and leaves nothing on the model.

    Args:
        transformer_options: options of this call; they are not changed.
        slots: the layers to claim.
        attach: makes the attention of a slot from the one that is there.
    Returns:
        Options for the call, equal to `transformer_options` except for the claimed slots.
    """
    replacements = transformer_options.get("patches_replace", {})
    attn2 = dict(replacements.get("attn2", {}))
    for slot in slots:
        keys = (tuple(slot), (slot.block, slot.number))
        standing = next((attn2[key] for key in keys if key in attn2), host_attention)
        attn2[keys[0]] = attach(standing, slot)
    return {**transformer_options, "patches_replace": {**replacements, "attn2": attn2}}


def host_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Computes what the host computes for an empty slot, with the same kernel."""
    precision: torch.dtype | None = extra_options["attn_precision"]
    return optimized_attention(
        q, k, v, extra_options["n_heads"], attn_precision=precision, transformer_options=extra_options
    )
