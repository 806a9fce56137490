"""Lets identities act on the rows of a batch as they were before another pack changed them.

Packs that prompt regions by attention multiply the rows of the batch in `attn2_patch`, one copy for each region, and
bring them together again in `attn2_output_patch`. The identities act after that, on the queries from before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...block_slots import BlockSlot
from ...errors import ShapeMismatchError
from .attention import IdentityAttention


def changes_rows(transformer_options: Mapping[str, Any]) -> bool:
    """Returns whether another pack may change the rows that enter cross attention."""
    return bool(transformer_options.get("patches", {}).get("attn2_patch"))


class RowsAsTheyWere:
    """What enters each cross attention of one call, from before the patches of other packs until after them.

    Args:
        attentions: our attention in each slot, filled when the slots are claimed.
        left_out: the layers in which it did not act, because their rows had changed.
    """

    def __init__(self, attentions: Mapping[BlockSlot, IdentityAttention], left_out: set[BlockSlot]) -> None:
        self._attentions, self._left_out = attentions, left_out
        self._inputs: dict[BlockSlot, Tensor] = {}

    def around(self, transformer_options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options of this call with our patches before and after those of other packs."""
        patches = transformer_options["patches"]
        around = {
            "attn2_patch": [self._enter, *patches["attn2_patch"]],
            "attn2_output_patch": [*patches.get("attn2_output_patch", ()), self._leave],
        }
        return {**transformer_options, "patches": {**patches, **around}}

    def _enter(
        self, n: Tensor, context: Tensor, value: Tensor, extra_options: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keeps a layer's input, (batch, num_queries, width). It is an `attn2_patch`."""
        self._inputs[_slot(extra_options)] = n
        return n, context, value

    def _leave(self, output: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Adds the identities to a layer's output, (batch, num_queries, width). It is an `attn2_output_patch`.

        Raises:
            ShapeMismatchError: the rows did not come together again.
        """
        slot = _slot(extra_options)
        n = self._inputs.pop(slot)
        if slot not in self._left_out:
            return output
        self._left_out.remove(slot)
        if output.shape != n.shape:
            raise ShapeMismatchError(
                f"an attention layer gets {tuple(n.shape)} and returns {tuple(output.shape)}; a pack that prompts "
                "regions by attention is only half active on this model: connect both of its outputs, or bypass it"
            )
        attention = self._attentions[slot]
        layer = attention.layers[slot]
        q = layer.to_q(n)
        term = attention.join_text(torch.zeros_like(q), q, extra_options)
        return output + (layer.to_out(term) - layer.to_out(torch.zeros_like(term[:1, :1])))  # without the bias


def _slot(extra_options: Mapping[str, Any]) -> BlockSlot:
    block, number = extra_options["block"]
    return BlockSlot(block, number, extra_options["block_index"])
