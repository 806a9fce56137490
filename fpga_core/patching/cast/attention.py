"""The identities' part of one attention layer, and what a sampling run keeps for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...block_slots import Attention, BlockSlot
from ...errors import ShapeMismatchError
from ...identity.adapters import KeyValue
from ...identity.layer_emphasis import LayerEmphasis
from ...identity.masked_attention import ActingQueries, JoinText, add_identities, identity_activity
from ...shapes import Extent
from .conditioning import EncodedCast
from .record import RECORDS_OPTION
from .slots import AttentionCall


@dataclass(frozen=True, eq=False)
class CastCall:
    """The part of a cast that one call of the model carries.

    Attributes:
        rows: (batch, identities) row numbers in the run's table of tokens.
        weights: strength times region on the latent, cropped as the call is, (batch, identities, height, width).
    """

    rows: Tensor
    weights: Tensor
    _rows: dict[torch.device, Tensor] = field(default_factory=dict)
    _drawn: dict[tuple[Extent, torch.device, torch.dtype], ActingQueries] = field(default_factory=dict)

    def rows_on(self, device: torch.device) -> Tensor:
        if device not in self._rows:
            self._rows[device] = self.rows.to(device)
        return self._rows[device]

    def on_grid(self, grid: Extent, q: Tensor) -> ActingQueries:
        """Returns the weights of a layer's queries, with the dtype and device of q, drawn once for each grid."""
        key = (grid, q.device, q.dtype)
        if key not in self._drawn:
            self._drawn[key] = ActingQueries.on_grid(self.weights, grid).to(q.device, q.dtype)
        return self._drawn[key]


@dataclass(frozen=True, eq=False, kw_only=True)
class CastRun:
    """What one sampling run keeps of a cast. It ends with the run.

    Attributes:
        projections: the adapter's own projections; None uses those of the layers.
        parts: what the run's conditionings carry; their tokens, one after another, form the table of the run.
        emphasis: how the strength varies over the layers.
        is_constant: whether the layers' own projections stay the same throughout the run.
    """

    projections: Mapping[BlockSlot, KeyValue] | None
    parts: tuple[EncodedCast, ...]
    emphasis: LayerEmphasis
    is_constant: bool
    _projected: dict[tuple[BlockSlot, torch.device, torch.dtype], KeyValue] = field(default_factory=dict)
    _calls: list[CastCall] = field(default_factory=list)

    @property
    def tokens(self) -> Tensor:
        """(rows, num_tokens, token_dim)."""
        return torch.cat([part.tokens for part in self.parts])

    def member(self, row: int) -> tuple[int, str]:
        """Returns the number and name of the member whose tokens are in a row of the table."""
        named = (
            (number, member.identity.name)
            for part in self.parts
            for number, member in zip(part.numbers, part.cast.members, strict=True)
        )
        return list(named)[row]

    def call(self, rows: Tensor, weights: Tensor, x: Tensor) -> CastCall:
        """Returns what a call carries. Equal calls share one object, with its weights on each grid.

        Args:
            rows: (batch, identities).
            weights: (batch, identities, height, width).
            x: the call's latents, (batch, channels, height, width).
        Raises:
            ShapeMismatchError: the regions do not have the latent's size.
        """
        if (weights.shape[0], *weights.shape[2:]) != (x.shape[0], *x.shape[2:]):
            raise ShapeMismatchError(
                f"the cast's regions are {tuple(weights.shape)}, but the latent is {tuple(x.shape)}; a pack that "
                "samples in tiles is probably active: bypass it, or use the model from before Apply Cast in this pass"
            )
        rows, weights = rows.cpu(), weights.cpu()  # on the CPU, where the host keeps them, except with several GPUs
        for call in self._calls:
            if torch.equal(call.rows, rows) and torch.equal(call.weights, weights):
                return call
        self._calls.append(CastCall(rows, weights))
        return self._calls[-1]

    def key_value(self, slot: BlockSlot, layers: Mapping[BlockSlot, Attention], q: Tensor) -> KeyValue:
        """Returns a layer's keys and values of the whole table, (rows, num_tokens, inner_dim), in q's dtype."""
        key = (slot, q.device, q.dtype)
        if (projected := self._projected.get(key)) is None:
            projected = self._project(slot, layers[slot], q)
            scale = self.emphasis.scale(list(layers).index(slot), len(layers))
            projected = projected._replace(value=projected.value * scale)  # the output is linear in the values
            if self.projections is not None or self.is_constant:
                self._projected[key] = projected
        return projected

    def _project(self, slot: BlockSlot, attention: Attention, q: Tensor) -> KeyValue:
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
    """Eq. 1 in one attention slot: the previous attention plus the identities of this call.

    Attributes:
        previous: the attention that was in the slot.
        slot: the layer.
        run: holds what is the same in every call.
        call: the identities and regions of this call.
        layers: every cross attention of the network.
        join: how the identities are combined with the text.
    """

    previous: AttentionCall
    slot: BlockSlot
    _: KW_ONLY
    run: CastRun
    call: CastCall
    layers: Mapping[BlockSlot, Attention]
    join: JoinText = add_identities

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
        text_output = self.previous(q, k, v, extra_options, **kwargs)
        grid, rows = layer_grid(extra_options, q), self.call.rows_on(q.device)
        keys, values = (table[rows] for table in self.run.key_value(self.slot, self.layers, q))
        acting, num_heads = self.call.on_grid(grid, q), extra_options["n_heads"]
        for record in extra_options.get(RECORDS_OPTION, ()):
            if record.wants(list(self.layers).index(self.slot), extra_options):
                activity = identity_activity(
                    text_output, q, keys=keys, values=values, acting=acting, num_heads=num_heads
                )
                members = [[self.run.member(row) for row in rows] for rows in self.call.rows.tolist()]
                record.keep(activity, members, grid=grid, extra_options=extra_options)
        return self.join(text_output, q, keys=keys, values=values, acting=acting, num_heads=num_heads)


def layer_grid(extra_options: Mapping[str, Any], q: Tensor) -> Extent:
    """Returns width and height of an attention layer's queries, as the host reports them.

    Raises:
        ShapeMismatchError: the number of queries is not that of the layer's cells.
    """
    height, width = extra_options["activations_shape"][-2:]
    grid = Extent(width, height)
    if grid.num_cells != q.shape[1]:
        raise ShapeMismatchError(
            f"an attention layer on a {grid} grid gets {q.shape[1]} queries instead of {grid.num_cells}; a patch that "
            "merges or drops tokens is probably active on this model: bypass it"
        )
    return grid
