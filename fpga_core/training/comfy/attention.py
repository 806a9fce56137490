"""Attention under training: differentiable on every device, with the identities' share, recorded where asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...block_slots import Attention, BlockSlot
from ...identity.masked_attention import identity_attention
from ...patching.cast.attention import layer_grid
from ...shapes import Extent, cell_means
from ..method.identity_network import IdentityNetwork


@dataclass(frozen=True, eq=False)
class ReadIdentity:
    """The people in a batch, one in each picture.

    Attributes:
        network: makes their keys and values.
        tokens: (batch, num_tokens, token_dim).
        masks: face regions, (batch, 1, height, width) latent pixels; a person acts nowhere else.
    """

    network: IdentityNetwork
    tokens: Tensor
    masks: Tensor


@dataclass(eq=False)
class RecordedFeature:
    """Cross-attention features of one layer, text and identity together, before `to_out`: F_CA of Eq. 2.

    Attributes:
        features: (batch, queries, inner_dim); None until the network has run.
        grid: width and height of the queries.
    """

    features: Tensor | None = None
    grid: Extent = Extent(0, 0)


def attention_options(
    layers: Mapping[BlockSlot, Attention],
    identity: ReadIdentity | None = None,
    record: RecordedFeature | None = None,
) -> dict[str, Any]:
    """ComfyUI's `transformer_options` for one forward under training.

    The host's attention may write in place or split by free memory; this one is torch's own, which has a derivative
    everywhere.

    Args:
        layers: every cross attention of the network.
        identity: the people whom cross attention reads beside the text; None: nobody.
        record: gets the features of the first, highest layer.
    """
    first = next(iter(layers))
    cross = {
        tuple(slot): partial(cross_attention, slot, attention, identity, record if slot == first else None)
        for slot, attention in layers.items()
    }
    own = {tuple(slot): self_attention for slot in layers}
    return {"patches_replace": {"attn1": own, "attn2": cross}}


def self_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: Mapping[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Plain attention in a slot, (batch, queries, inner_dim) on (batch, tokens, inner_dim)."""
    heads = extra_options["n_heads"]
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def cross_attention(
    slot: BlockSlot, attention: Attention, identity: ReadIdentity | None, record: RecordedFeature | None,
    q: Tensor, k: Tensor, v: Tensor, extra_options: Mapping[str, Any], **kwargs: Any,  # noqa: ANN401
) -> Tensor:  # fmt: skip
    """Attention to the text, and to the identity inside its region.

    Every query is computed, where inference picks those inside the regions: parameters that a batch without faces left
    out would stall training on several devices.

    Source: FPGA Eq. 1.
    """
    output = self_attention(q, k, v, extra_options)
    grid = layer_grid(extra_options, q)
    if identity is not None:
        keys, values = identity.network.key_value(slot, attention, identity.tokens.to(q.dtype))
        weights = cell_means(identity.masks, grid).flatten(2).to(q.dtype)
        heads = extra_options["n_heads"]
        output = output + identity_attention(q, keys[:, None], values[:, None], weights, heads)
    if record is not None and record.features is None:  # checkpointing runs the layer a second time
        record.features, record.grid = output, grid
    return output
