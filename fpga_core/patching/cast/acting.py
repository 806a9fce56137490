"""Lets the identities of a cast act in one call of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...block_slots import BlockSlot
from ...identity.masked_attention import JoinText, add_identities
from ...shapes import Extent
from ..unet import cross_attention_layers, layer_grids
from .attention import CastCall, CastRun, IdentityAttention
from .rows import RowsAsTheyWere, changes_rows
from .slots import AttentionCall, claim_slots


def let_identities_act(
    transformer_options: Mapping[str, Any],
    network: nn.Module,
    *,
    run: CastRun,
    call: CastCall,
    x: Tensor,
    dtype: torch.dtype,
    join: JoinText = add_identities,
) -> dict[str, Any]:
    """Claims the cross attentions of a network for the identities of one call.

    Keys, values and weights are made here, before the network is called, so that nothing is computed twice and no
    device waits, and a compiled network finds only tensors.

    Args:
        transformer_options: options of this call; they are not changed.
        network: a UNet or a ControlNet.
        run: what the sampling run keeps of the cast.
        call: the part of the cast that this call carries.
        x: the call's latents, (batch, channels, height, width).
        dtype: the dtype in which the network computes.
        join: how the identities are combined with the text.
    Returns:
        Options for the call.
    """
    layers, latent = cross_attention_layers(network), Extent(x.shape[-1], x.shape[-2])
    projected = run.projected(layers, x.device, dtype)
    drawn = call.on(x.device, dtype, {grid for _, _, grid in layer_grids(network, latent)})
    left_out: set[BlockSlot] | None = set() if changes_rows(transformer_options) else None
    attentions: dict[BlockSlot, IdentityAttention] = {}

    def attach(previous: AttentionCall, slot: BlockSlot) -> IdentityAttention:
        attentions[slot] = IdentityAttention(
            previous, slot, run=run, call=drawn, layers=layers, projected=projected, left_out=left_out, join=join
        )
        return attentions[slot]

    claimed = claim_slots(transformer_options, layers, attach)
    return claimed if left_out is None else RowsAsTheyWere(attentions, left_out).around(claimed)
