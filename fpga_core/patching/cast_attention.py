"""The identities' share of one attention layer, and what a sampling run keeps for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeMismatchError
from ..identity.adapters import KeyValue
from ..identity.attention_slots import BlockSlot
from ..identity.layer_emphasis import LayerEmphasis
from ..identity.masked_attention import QueryWeights, add_identities
from ..shapes import Extent
from .slots import AttentionCall


@dataclass(frozen=True, eq=False)
class People:
    """The identities in one call of the model.

    Attributes:
        rows: (batch, identities) row numbers in the run's table of tokens.
        weights: strength times region on the latent, cropped as the call is, (batch, identities, height, width).
    """

    rows: Tensor
    weights: Tensor
    _rows: dict[torch.device, Tensor] = field(default_factory=dict)
    _drawn: dict[tuple[Extent, torch.device, torch.dtype], QueryWeights] = field(default_factory=dict)

    def rows_on(self, device: torch.device) -> Tensor:
        if device not in self._rows:
            self._rows[device] = self.rows.to(device)
        return self._rows[device]

    def on_grid(self, grid: Extent, q: Tensor) -> QueryWeights:
        """The weights of a layer's queries, dtype and device of q, drawn once for each grid."""
        key = (grid, q.device, q.dtype)
        if key not in self._drawn:
            self._drawn[key] = QueryWeights.on_grid(self.weights, grid).to(q.device, q.dtype)
        return self._drawn[key]


@dataclass(frozen=True, eq=False)
class CastRun:
    """What one sampling run keeps of a cast; it ends with the run.

    Attributes:
        projections: the adapter's own, or None: those of the layers themselves.
        tokens: the table of every identity's tokens in this run, (rows, num_tokens, token_dim).
        emphasis: how strength varies over the layers.
        is_constant: whether the layers' own projections stay the same throughout the run.
    """

    projections: Mapping[BlockSlot, KeyValue] | None
    tokens: Tensor
    emphasis: LayerEmphasis
    is_constant: bool
    _projected: dict[tuple[BlockSlot, torch.device, torch.dtype], KeyValue] = field(default_factory=dict)
    _people: list[People] = field(default_factory=list)

    def people(self, rows: Tensor, weights: Tensor, x: Tensor) -> People:
        """The identities of a call; equal calls share one object, and with it the weights drawn on each grid.

        Args:
            rows: (batch, identities).
            weights: (batch, identities, height, width).
            x: the call's latents, (batch, channels, height, width).

        Raises:
            ShapeMismatchError: the regions are not of the latent's size.
        """
        if (weights.shape[0], *weights.shape[2:]) != (x.shape[0], *x.shape[2:]):
            raise ShapeMismatchError(
                f"the cast's regions are {tuple(weights.shape)} where the latent is {tuple(x.shape)}; a pack that samples in "
                "tiles is probably active: use its conditioning per tile, or Apply Cast without it"
            )
        rows, weights = rows.cpu(), weights.cpu()  # where the host keeps them, except with several GPUs
        for people in self._people:
            if torch.equal(people.rows, rows) and torch.equal(people.weights, weights):
                return people
        self._people.append(People(rows, weights))
        return self._people[-1]

    def key_value(self, slot: BlockSlot, layers: Mapping[BlockSlot, nn.Module], q: Tensor) -> KeyValue:
        """Keys and values of every row of the table in one layer, (rows, num_tokens, inner_dim), dtype and device of q."""
        key = (slot, q.device, q.dtype)
        if (projected := self._projected.get(key)) is None:
            projected = self._project(slot, layers[slot], q)
            scale = self.emphasis.scale(list(layers).index(slot), len(layers))
            projected = projected._replace(value=projected.value * scale)  # the output is linear in the values
            if self.projections is not None or self.is_constant:
                self._projected[key] = projected
        return projected

    def _project(self, slot: BlockSlot, attention: nn.Module, q: Tensor) -> KeyValue:
        if self.projections is None:
            tokens = self.tokens.to(q.device, q.dtype)
            return KeyValue(attention.to_k(tokens), attention.to_v(tokens))
        tokens = self.tokens.to(q.device)
        return KeyValue(
            *(
                nn.functional.linear(tokens, weight.to(q.device, tokens.dtype)).to(q.dtype)
                for weight in self.projections[slot]
            )
        )


@dataclass(frozen=True, eq=False)
class IdentityAttention:
    """Eq. 1 in one attention slot: what stood there before, plus the identities of this call."""

    previous: AttentionCall
    slot: BlockSlot
    run: CastRun
    people: People
    layers: Mapping[BlockSlot, nn.Module]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
        text_output = self.previous(q, k, v, extra_options, **kwargs)
        weights = self.people.on_grid(layer_grid(extra_options, q), q)
        keys, values = self.run.key_value(self.slot, self.layers, q)
        rows = self.people.rows_on(q.device)
        return add_identities(text_output, q, keys[rows], values[rows], weights, extra_options["n_heads"])


def layer_grid(extra_options: Mapping[str, Any], q: Tensor) -> Extent:
    """Width and height of an attention layer's queries, as the host reports them.

    Raises:
        ShapeMismatchError: the queries are not one for each cell of the layer.
    """
    height, width = extra_options["activations_shape"][-2:]
    grid = Extent(width, height)
    if grid.num_cells != q.shape[1]:
        raise ShapeMismatchError(
            f"an attention layer on a {grid} grid gets {q.shape[1]} queries instead of {grid.num_cells}; a patch that merges or "
            "drops tokens is probably active on this model: bypass it"
        )
    return grid
