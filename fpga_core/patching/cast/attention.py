"""The identities' part of one attention layer, and what a sampling run keeps for it.

Everything that a layer needs is made before the model is called: keys and values, and the weights of its queries. A
compiled model therefore sees tensors only, and is not compiled again if they change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...block_slots import Attention, BlockSlot
from ...errors import ShapeMismatchError
from ...identity.layer_emphasis import LayerEmphasis
from ...identity.masked_attention import ActingQueries, JoinText, add_identities, identity_activity
from ...identity.people import KeyValue
from ...shapes import Extent
from .conditioning import EncodedCast
from .record import RECORDS_OPTION
from .slots import AttentionCall


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawnCall:
    """The part of a cast that one call of the model carries, on the device of the call.

    Attributes:
        rows: (batch, identities) row numbers in the run's table of tokens.
        weights: strength times region on the latent, (batch, identities, height, width), on the CPU.
        dtype: the dtype of the queries.
    """

    rows: Tensor
    weights: Tensor
    dtype: torch.dtype
    _drawn: dict[tuple[int, int], ActingQueries] = field(default_factory=dict)

    def on_grid(self, height: int, width: int) -> ActingQueries:
        """Returns the weights of a layer's queries, drawn once for each grid."""
        if (height, width) not in self._drawn:
            drawn = ActingQueries.on_grid(self.weights, Extent(width, height)).to(self.rows.device, self.dtype)
            may_change_size(drawn.weights, 1, 2)
            if drawn.indices is not None:
                may_change_size(drawn.indices, 0)
            self._drawn[height, width] = drawn
        return self._drawn[height, width]


@dataclass(frozen=True, eq=False)
class CastCall:
    """The part of a cast that one call of the model carries.

    Attributes:
        rows: (batch, identities) row numbers in the run's table of tokens.
        weights: strength times region on the latent, cropped as the call is, (batch, identities, height, width).
    """

    rows: Tensor
    weights: Tensor
    _on: dict[tuple[torch.device, torch.dtype], DrawnCall] = field(default_factory=dict)

    def on(self, device: torch.device, dtype: torch.dtype, grids: Iterable[Extent]) -> DrawnCall:
        """Returns this on a device, drawn on the grids of the layers."""
        if (device, dtype) not in self._on:
            drawn = DrawnCall(rows=self.rows.to(device), weights=self.weights, dtype=dtype)
            may_change_size(drawn.rows, 1)
            self._on[device, dtype] = drawn
        drawn = self._on[device, dtype]
        for grid in grids:
            drawn.on_grid(grid.height, grid.width)
        return drawn


@dataclass(frozen=True, eq=False, kw_only=True)
class CastRun:
    """What one sampling run keeps of a cast. It ends with the run.

    Attributes:
        parts: what the run's conditionings carry; their tokens, one after another, form the table of the run.
        has_own_projections: whether the parts hold the keys and values of the adapter's own projections; otherwise
            those of the layers are used.
        emphasis: how the strength varies over the layers.
        is_constant: whether the layers' own projections stay the same throughout the run.
    """

    parts: tuple[EncodedCast, ...]
    has_own_projections: bool
    emphasis: LayerEmphasis
    is_constant: bool
    _projected: dict[tuple[torch.device, torch.dtype], dict[BlockSlot, KeyValue]] = field(default_factory=dict)
    _calls: list[CastCall] = field(default_factory=list)

    @property
    def tokens(self) -> Tensor:
        """(rows, num_tokens, token_dim)."""
        return torch.cat([part.tokens for part in self.parts])

    def member(self, row: int) -> tuple[int, str]:
        """Returns the number and name of the member whose tokens are in a row of the table."""
        named = [
            (number, member.identity.name)
            for part in self.parts
            for number, member in zip(part.cast.numbers, part.cast.members, strict=True)
        ]
        return named[row]

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

    def projected(
        self, layers: Mapping[BlockSlot, Attention], device: torch.device, dtype: torch.dtype
    ) -> Mapping[BlockSlot, KeyValue]:
        """Returns every layer's keys and values of the whole table, (rows, num_tokens, inner_dim).

        There are none if the layers' own projections change during the run: `key_value` projects with those.
        """
        if not self.has_own_projections and not self.is_constant:
            return {}
        if (device, dtype) not in self._projected:
            q = torch.empty(0, device=device, dtype=dtype)
            self._projected[device, dtype] = {slot: self.key_value(slot, layers, q) for slot in layers}
        return self._projected[device, dtype]

    def key_value(self, slot: BlockSlot, layers: Mapping[BlockSlot, Attention], q: Tensor) -> KeyValue:
        """Returns a layer's keys and values of the whole table, with the device and dtype of q."""
        scale = self.emphasis.scale(list(layers).index(slot), len(layers))
        if self.has_own_projections:
            key, value = (
                torch.cat([part.projected[slot][which] for part in self.parts]).to(q.device).to(q.dtype)
                for which in (0, 1)
            )
        else:
            tokens = self.tokens.to(q.device, q.dtype)
            key, value = layers[slot].to_k(tokens), layers[slot].to_v(tokens)
        projected = KeyValue(key, value * scale)  # the output is linear in the values
        for table in projected:
            may_change_size(table, 0)
        return projected


@dataclass(frozen=True, eq=False)
class IdentityAttention:
    """Eq. 1 in one attention slot: the previous attention plus the identities of this call.

    Attributes:
        previous: the attention that was in the slot.
        slot: the layer.
        run: holds what is the same in every call.
        call: the identities and regions of this call, on the device of the call.
        layers: every cross attention of the network.
        projected: the run's keys and values in every layer; empty if they change from call to call.
        left_out: receives the layers whose rows another pack has changed, where the identities must act elsewhere;
            None if they cannot.
        join: how the identities are combined with the text.
    """

    previous: AttentionCall
    slot: BlockSlot
    _: KW_ONLY
    run: CastRun
    call: DrawnCall
    layers: Mapping[BlockSlot, Attention]
    projected: Mapping[BlockSlot, KeyValue]
    left_out: set[BlockSlot] | None = None
    join: JoinText = add_identities

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:  # noqa: ANN401
        text_output = self.previous(q, k, v, extra_options, **kwargs)
        if len(q) == len(self.call.rows):
            return self.join_text(text_output, q, extra_options)
        if self.left_out is None:
            raise ShapeMismatchError(
                f"an attention layer gets {len(q)} rows, but the cast was made for {len(self.call.rows)}; another pack "
                "changes the batch inside the model: bypass it"
            )
        self.left_out.add(self.slot)
        return text_output

    def join_text(self, text_output: Tensor, q: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Returns a layer's output with the identities, before `to_out`.

        Args:
            text_output: attention to the text, (batch, num_queries, inner_dim).
            q: the layer's queries, as wide.
            extra_options: the host's options of the layer.
        """
        height, width = layer_grid(extra_options, q)
        projected = self.projected.get(self.slot) or self.run.key_value(self.slot, self.layers, q)
        keys, values = (table.to(q.dtype)[self.call.rows] for table in projected)
        acting, num_heads = self.call.on_grid(height, width), extra_options["n_heads"]
        for record in extra_options.get(RECORDS_OPTION, ()):
            if record.wants(list(self.layers).index(self.slot), extra_options):
                activity = identity_activity(
                    text_output, q, keys=keys, values=values, acting=acting, num_heads=num_heads
                )
                members = [[self.run.member(row) for row in rows] for rows in self.call.rows.tolist()]
                record.keep(activity, members, grid=Extent(width, height), extra_options=extra_options)
        return self.join(text_output, q, keys=keys, values=values, acting=acting, num_heads=num_heads)


def may_change_size(tensor: Tensor, *axes: int) -> None:
    """Tells the compiler which axes depend on the cast, so that another cast does not compile the model again."""
    if "torch._dynamo" in sys.modules and not torch.compiler.is_compiling():
        for axis in axes:
            torch._dynamo.maybe_mark_dynamic(tensor, axis)


def layer_grid(extra_options: Mapping[str, Any], q: Tensor) -> tuple[int, int]:
    """Returns height and width of an attention layer's queries, as the host reports them.

    Raises:
        ShapeMismatchError: the number of queries is not that of the layer's cells.
    """
    height, width = extra_options["activations_shape"][-2:]
    if height * width != q.shape[1]:
        raise ShapeMismatchError(
            f"an attention layer on a {width}x{height} grid gets {q.shape[1]} queries instead of {height * width}; a "
            "patch that merges or drops tokens is probably active on this model: bypass it"
        )
    return height, width
