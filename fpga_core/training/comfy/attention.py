"""Attention while training: differentiable on every device, with the identity's part, recorded if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...block_slots import Attention, BlockSlot
from ...identity.masked_attention import identity_attention
from ...patching.cast.attention import layer_grid
from ...shapes import Extent, cell_means
from ..method.clone_face import RecordedFeature
from ..method.identity_network import ReadIdentity


def attention_options(
    layers: Mapping[BlockSlot, Attention],
    *,
    identity: ReadIdentity | None = None,
    record: RecordedFeature | None = None,
) -> dict[str, Any]:
    """ComfyUI's `transformer_options` for one forward pass of training.

    The host's attention may write in place or split by free memory. This one is torch's own, which can always be
    differentiated.

    Args:
        layers: every cross attention of the network.
        identity: the identity that cross attention reads in addition to the text; None for none.
        record: receives the features of the first layer, which has the highest resolution.
    """
    first = next(iter(layers))
    cross = {
        tuple(slot): CrossAttention(
            slot=slot, attention=attention, identity=identity, record=record if slot == first else None
        )
        for slot, attention in layers.items()
    }
    own = {tuple(slot): _self_attention for slot in layers}
    return {"patches_replace": {"attn1": own, "attn2": cross}}


def _self_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: Mapping[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Computes plain attention in a slot, (batch, queries, inner_dim) on (batch, tokens, inner_dim)."""
    heads = extra_options["n_heads"]
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossAttention:
    """Attention to the text, and to the identity inside its region, with the signature of ComfyUI's attention slots.

    Every query is computed, while inference selects those inside the regions. Otherwise a batch without faces would
    leave out parameters, which stalls training on several devices.

    Attributes:
        slot: the layer.
        attention: its cross attention; the identity may share its projections.
        identity: the identity that is read in addition to the text.
        record: receives the output.
    Source: FPGA Eq. 1.
    """

    slot: BlockSlot
    attention: Attention
    identity: ReadIdentity | None
    record: RecordedFeature | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: Mapping[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
        """(batch, queries, inner_dim) on (batch, tokens, inner_dim), before `to_out`."""
        output = _self_attention(q, k, v, extra_options)
        height, width = layer_grid(extra_options, q)
        identity, record = self.identity, self.record
        if identity is not None:
            keys, values = identity.network.key_value(self.slot, self.attention, identity.tokens.to(q.dtype))
            weights = cell_means(identity.masks, Extent(width, height)).flatten(2).to(q.dtype)
            output = output + identity_attention(
                q, keys=keys[:, None], values=values[:, None], weights=weights, num_heads=extra_options["n_heads"]
            )
        if record is not None and record.features is None:  # checkpointing runs the layer a second time
            record.features, record.grid = output, Extent(width, height)
        return output
