"""Mask Guided Multi-ID Cross Attention: each identity acts inside its own region, and all share one product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ShapeMismatchError
from ..shapes import Extent, cell_means

GATHER_BELOW = 0.5
"""Queries are picked out if fewer than this fraction of them lies in a region: picking them costs time too."""

MAX_SCORES = 2**26
"""The number of attention scores in memory at once. Longer lists of queries are processed in parts."""


@dataclass(frozen=True, eq=False)
class ActingQueries:
    """The queries of one attention layer that identities act on, and how strongly.

    Attributes:
        weights: (batch, identities, num_acting), strengths included.
        indices: (num_acting,) which queries these are, if only a few lie in a region; None = every query.
    """

    weights: Tensor
    indices: Tensor | None = None

    @classmethod
    def on_grid(cls, weights: Tensor, grid: Extent) -> ActingQueries:
        """Resamples weights on the latent to a layer's grid. Every cell holds the mean of what it covers.

        Args:
            weights: (batch, identities, height, width) on the latent; on the CPU no device has to wait for the indices.
            grid: width and height of the layer's tokens.
        Returns:
            The queries, without those that no identity acts on if leaving them out pays.
        """
        weights = cell_means(weights, grid).flatten(2)
        indices = (weights != 0).any(dim=1).any(dim=0).nonzero()[:, 0]
        if len(indices) >= GATHER_BELOW * grid.num_cells:
            return cls(weights)
        return cls(weights[..., indices], indices)

    def to(self, device: torch.device, dtype: torch.dtype) -> ActingQueries:
        return ActingQueries(self.weights.to(device, dtype), None if self.indices is None else self.indices.to(device))


class JoinText(Protocol):
    """How identities join the text's attention: `add_identities` or `replace_by_identities`."""

    def __call__(
        self, text_output: Tensor, q: Tensor, *, keys: Tensor, values: Tensor, acting: ActingQueries, num_heads: int
    ) -> Tensor: ...


def identity_attention(q: Tensor, *, keys: Tensor, values: Tensor, weights: Tensor, num_heads: int) -> Tensor:
    """Computes the identities' part of Eq. 1, `sum_i w_i softmax(q k_i^T / sqrt(d)) v_i`.

    The weights multiply the attention probabilities, so that the sum over the identities happens inside the product
    with the values: the whole cast takes two matrix products, and identity i adds exactly 0 where w_i is 0.

    Args:
        q: queries, (batch, num_queries, inner_dim).
        keys: (batch, identities, num_tokens, inner_dim).
        values: (batch, identities, num_tokens, inner_dim).
        weights: strength times region, (batch, identities, num_queries).
        num_heads: the number of attention heads in inner_dim.
    Returns:
        (batch, num_queries, inner_dim), dtype and device of q.
    Raises:
        ShapeMismatchError: batch sizes, widths or the number of queries disagree.
    Source: FPGA Eq. 1 and section 3.1; regions as in its Fig. 2.
    """
    _check_shapes(q, keys=keys, values=values, weights=weights, num_heads=num_heads)
    batch, _, inner_dim = q.shape
    num_identities, num_tokens = keys.shape[1:3]
    head_dim = inner_dim // num_heads
    # (batch, identities, tokens, heads * head_dim) -> (batch, heads, head_dim | identities * tokens, ...)
    keys = keys.reshape(batch, -1, num_heads, head_dim).permute(0, 2, 3, 1) * head_dim**-0.5
    values = values.reshape(batch, -1, num_heads, head_dim).transpose(1, 2)
    part = max(1, MAX_SCORES // (batch * num_heads * num_identities * num_tokens))
    outputs: list[Tensor] = []
    for queries, weight in zip(torch.split(q, part, dim=1), torch.split(weights, part, dim=2), strict=True):
        heads = queries.reshape(batch, -1, num_heads, head_dim).transpose(1, 2)
        scores = torch.unflatten(heads @ keys, -1, (num_identities, num_tokens))
        probabilities = scores.softmax(dim=-1) * weight.transpose(1, 2)[:, None, :, :, None]
        output = probabilities.flatten(-2) @ values  # (batch, heads, queries, head_dim)
        outputs.append(output.transpose(1, 2).flatten(2))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def add_identities(
    text_output: Tensor, q: Tensor, *, keys: Tensor, values: Tensor, acting: ActingQueries, num_heads: int
) -> Tensor:
    """Eq. 1 with regions: `o + sum_i w_i softmax(q k_i^T / sqrt(d)) v_i`, computed for the acting queries only.

    Args:
        text_output: o, attention to the text, (batch, num_queries, inner_dim).
        q, keys, values, num_heads: as in `identity_attention`.
        acting: this layer's queries, with strength times region of each identity.
    Returns:
        (batch, num_queries, inner_dim), a new tensor; exactly `text_output` wherever no identity acts.
    Raises:
        ShapeMismatchError: as in `identity_attention`.
    Source: FPGA Eq. 1.
    """
    indices, weights = acting.indices, acting.weights
    if indices is None:
        return text_output + identity_attention(q, keys=keys, values=values, weights=weights, num_heads=num_heads)
    if len(indices) == 0:
        return text_output
    queries = q.index_select(1, indices)
    term = identity_attention(queries, keys=keys, values=values, weights=weights, num_heads=num_heads)
    return text_output.index_add(1, indices, term)


def replace_by_identities(
    text_output: Tensor, q: Tensor, *, keys: Tensor, values: Tensor, acting: ActingQueries, num_heads: int
) -> Tensor:
    """Computes identities in place of the text: `(1 - sum_i w_i) o + sum_i w_i softmax(q k_i^T / sqrt(d)) v_i`.

    Args:
        text_output, q, keys, values, num_heads: as in `add_identities`.
        acting: this layer's queries, with the region of each identity; the regions sum to at most 1.
    Returns:
        (batch, num_queries, inner_dim), a new tensor; exactly `text_output` wherever no identity acts, and none of it
        wherever the weights sum to 1.
    Raises:
        ShapeMismatchError: as in `identity_attention`.
    Source: InstantID, whose ControlNet reads the face's tokens in place of the text. The regions are the pack's.
    """
    indices, weights = _query_indices(acting, q), acting.weights
    rest = 1 - weights.sum(dim=1)[..., None]
    queries = q.index_select(1, indices)
    term = identity_attention(queries, keys=keys, values=values, weights=weights, num_heads=num_heads)
    return text_output.index_copy(1, indices, rest * text_output.index_select(1, indices) + term)


def identity_activity(
    text_output: Tensor, q: Tensor, *, keys: Tensor, values: Tensor, acting: ActingQueries, num_heads: int
) -> Tensor:
    """Measures how much each identity adds to each query, relative to the text: `|w_i softmax(..) v_i| / |o|`.

    Args:
        text_output, q, keys, values, acting, num_heads: as in `add_identities`.
    Returns:
        (batch, identities, num_queries) float32; exactly 0 outside an identity's region.
    """
    indices, weights = _query_indices(acting, q), acting.weights
    queries = q.index_select(1, indices)
    terms = [
        identity_attention(
            queries, keys=keys[:, [i]], values=values[:, [i]], weights=weights[:, [i]], num_heads=num_heads
        )
        for i in range(keys.shape[1])
    ]
    activity = torch.zeros(*keys.shape[:2], q.shape[1], device=q.device)
    beside = _lengths(text_output.index_select(1, indices))
    activity[..., indices] = _lengths(torch.stack(terms, dim=1)) / beside[:, None]
    return activity


def _query_indices(acting: ActingQueries, q: Tensor) -> Tensor:
    return torch.arange(q.shape[1], device=q.device) if acting.indices is None else acting.indices


def _lengths(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors.float(), dim=-1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _check_shapes(q: Tensor, *, keys: Tensor, values: Tensor, weights: Tensor, num_heads: int) -> None:
    batch, num_queries, inner_dim = q.shape
    if keys.shape != values.shape or (keys.shape[0], keys.shape[-1]) != (batch, inner_dim) or inner_dim % num_heads:
        raise ShapeMismatchError(
            f"identity keys are {tuple(keys.shape)} and values {tuple(values.shape)}, but queries {tuple(q.shape)} "
            f"with {num_heads} heads need ({batch}, identities, tokens, {inner_dim}); the adapter was made for another "
            "model"
        )
    if weights.shape != (batch, keys.shape[1], num_queries):
        raise ShapeMismatchError(
            f"region weights are {tuple(weights.shape)}, but {keys.shape[1]} identities on queries {tuple(q.shape)} "
            f"need {(batch, keys.shape[1], num_queries)}"
        )
