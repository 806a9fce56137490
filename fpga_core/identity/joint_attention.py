"""Mask Guided Multi-ID attention for transformers: text, picture and references of several people in one attention.

UNets add a term of each identity to the attention to the text (FPGA Eq. 1). A joint attention has no terms: a person's
reference is among the keys. The mask becomes a choice of keys, and the weights of the regions mix the outputs. What
holds in a UNet then holds here: outside its region, a reference has no influence at all, and people whose regions
overlap share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor], Tensor]
"""Attention of some tokens to some: their numbers, (queries,) and (keys,), -> (batch, queries, channels)."""


@dataclass(frozen=True, eq=False)
class Share:
    """Queries that see the same keys, and the part that this has in their output.

    Attributes:
        queries: numbers of tokens, (queries,), ascending.
        keys: numbers of the tokens that they see, (keys,), ascending.
        weight: (batch, queries, 1).
    """

    queries: Tensor
    keys: Tensor
    weight: Tensor


def share_attention(
    weights: Tensor, *, num_tokens: int, first: int, references: Sequence[tuple[int, int]]
) -> tuple[Share, ...]:
    """Says which tokens of a joint attention see which, so that each person's reference acts in their region only.

    - A token of the picture mixes, by the weights of its place, what it sees with the reference of each person there
      and what it sees without any. Where a weight is 0, that reference is not among its keys.
    - The other tokens (text, and pictures that are nobody's) have no place. They see a reference as much as the
      picture's token that sees it least: wholly if its region is the whole picture, else not at all. So no reference
      reaches the picture through the text.
    - A reference sees itself, what has no place, and the picture's tokens in its region; never another person's.

    Args:
        weights: strength times region at the picture's tokens, (batch, people, picture tokens).
        num_tokens: all tokens of the attention.
        first: the picture's first token; the others follow.
        references: first token and end of each person's reference.
    Returns:
        What `attend_in_shares` computes. For one person with weight 1 everywhere, every token sees all.
    """
    batch, num_people, num_picture = weights.shape
    device = weights.device
    owner = torch.full((num_tokens,), -1, device=device)
    for person, (start, end) in enumerate(references):
        owner[start:end] = person
    seen = weights.amin(dim=2, keepdim=True).repeat(1, 1, num_tokens)
    seen[:, :, first : first + num_picture] = weights
    nobodys = owner < 0
    shares = [_share(nobodys, nobodys, 1 - seen.sum(dim=1))]
    for person in range(num_people):
        own, whole = owner == person, torch.ones(batch, num_tokens, device=device)
        outside = (seen[:, person] == 0).all(dim=0)
        outside[:first] = outside[first + num_picture :] = False  # the text has no place, but a reference sees it
        shares.append(_share(nobodys, nobodys | own, seen[:, person]))
        shares.append(_share(own, (nobodys & ~outside) | own, whole))
    return tuple(share for share in shares if len(share.queries))


def attend_in_shares(shares: Sequence[Share], attend: Attend, *, num_tokens: int) -> Tensor:
    """Computes a joint attention in parts and mixes them.

    Args:
        shares: the parts, from `share_attention`.
        attend: the attention of some of the tokens to some.
        num_tokens: all tokens of the attention.
    Returns:
        (batch, num_tokens, channels), dtype and device of what `attend` returns.
    """
    parts = [attend(share.queries, share.keys) for share in shares]
    mixed = parts[0].new_zeros(len(parts[0]), num_tokens, parts[0].shape[-1])
    for share, part in zip(shares, parts, strict=True):
        mixed.index_add_(1, share.queries, part * share.weight.to(part))
    return mixed


def _share(queries: Tensor, keys: Tensor, weight: Tensor) -> Share:
    """Makes a share of those queries, (num_tokens,) bool, whose weight, (batch, num_tokens), is not 0."""
    chosen = (queries & (weight != 0).any(dim=0)).nonzero()[:, 0]
    return Share(chosen, keys.nonzero()[:, 0], weight[:, chosen, None])
