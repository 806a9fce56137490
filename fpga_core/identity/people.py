"""What an adapter makes of people: their tokens, and the keys and values that its own projections make of these.

It depends on nothing but the adapter and the photos, so it is made once per person and kept with the adapter.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from ..block_slots import BlockSlot
from ..errors import ShapeMismatchError
from .identity import Identity
from .resampler import FacePlusProjection, FaceProjection, Resampler

CPU = torch.device("cpu")


class KeyValue(NamedTuple):
    """A pair for one cross-attention layer: its key and value projections, or the keys and values that they give."""

    key: Tensor
    value: Tensor


Projections = Mapping[BlockSlot, KeyValue]
NO_LAYERS: Projections = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class EncodedPeople:
    """What a conditioning carries of one or several people.

    Attributes:
        tokens: (identities, num_tokens, token_dim) float32 on the CPU.
        projected: keys and values of the adapter's own projections, (identities, num_tokens, inner_dim) float32 in
            each layer; empty if the adapter shares those of the model.
    """

    tokens: Tensor
    projected: Projections = field(default_factory=lambda: NO_LAYERS)


class ReadByAdapter(NamedTuple):
    """What an adapter reads of one person.

    Attributes:
        embeddings: (photos, 512), as the resampler reads them; None if it reads none.
        features: CLIP hidden states, (1, num_features, width); None if it reads none.
    """

    embeddings: Tensor | None
    features: Tensor | None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal contents."""
        return tuple(None if part is None else (part.shape, sha256(part.numpy().tobytes()).digest()) for part in self)


@dataclass(frozen=True, eq=False)
class Kept:
    """What an adapter has made so far.

    Attributes:
        people: identity -> the person; it goes when the identity goes.
        nobody: `ReadByAdapter.key` -> nobody in the place of a person with as many photos.
    """

    people: WeakKeyDictionary[Identity, EncodedPeople] = field(default_factory=WeakKeyDictionary)
    nobody: dict[tuple[object, ...], EncodedPeople] = field(default_factory=dict)


def make_tokens(
    resampler: Resampler,
    read: Sequence[ReadByAdapter],
    *,
    has_shortcut: bool = True,
    structure_strength: float = 1.0,
    device: torch.device = CPU,
) -> list[Tensor]:
    """Runs a resampler in float32 for several people at once.

    A product with one row sums in another order than one with several. What may have one row is therefore projected
    person by person, so that a person's tokens hardly depend on who else is there.

    Args:
        resampler: the network, in the file's dtype; it is not changed.
        read: what it reads of each person.
        has_shortcut, structure_strength: see `FacePlusProjection.forward`.
        device: where it runs.
    Returns:
        One set for each person, (1, photos * num_tokens, token_dim) float32 on the CPU.
    """
    network = copy.deepcopy(resampler).to(device, torch.float32)
    with torch.no_grad():
        if isinstance(network, FaceProjection):
            tokens = [FaceProjection.forward(network, person.to(device)) for person, _ in read if person is not None]
            if isinstance(network, FacePlusProjection):
                features = [person.features.to(device) for person in read if person.features is not None]
                structured = partial(network.with_structure, shortcut=has_shortcut, scale=structure_strength)
                tokens = _in_batches(structured, tokens, features)
        else:
            features = [
                features if embeddings is None else embeddings[:, None]  # (photos, 1, 512): the only feature
                for embeddings, features in read
            ]
            projected = [network.proj_in(person.to(device)) for person in features if person is not None]
            tokens = _in_batches(network.gather, projected)
    # photos side by side: (photos, tokens, dim) -> (1, photos * tokens, dim)
    return [made.flatten(0, 1)[None].cpu() for made in tokens]


def project(projections: Projections, tokens: Sequence[Tensor], device: torch.device = CPU) -> list[Projections]:
    """Projects the tokens of several people with an adapter's own layers, in float32.

    Args:
        projections: weights of each layer, (inner_dim, token_dim), in the file's dtype; they are not changed.
        tokens: (1, num_tokens_i, token_dim) for each person.
        device: where they run, one layer at a time.
    Returns:
        For each person the keys and values of each layer, (1, num_tokens_i, inner_dim) float32 on the CPU.
    """
    if not tokens:
        return []
    sizes, table = [part.shape[1] for part in tokens], torch.cat(list(tokens), dim=1).to(device)
    people: list[dict[BlockSlot, KeyValue]] = [{} for _ in tokens]
    with torch.no_grad():
        for slot, weights in projections.items():
            key, value = (functional.linear(table, weight.to(device, table.dtype)).cpu() for weight in weights)
            for person, *pair in zip(
                people, torch.split(key, sizes, dim=1), torch.split(value, sizes, dim=1), strict=True
            ):
                person[slot] = KeyValue(*pair)
    return [MappingProxyType(person) for person in people]


def stack_people(people: Sequence[EncodedPeople]) -> EncodedPeople:
    """Stacks what was made of several people, repeating whole sets if their numbers of tokens differ.

    Raises:
        ShapeMismatchError: as `stack_tokens`.
    """
    slots = people[0].projected
    return EncodedPeople(
        stack_tokens([person.tokens for person in people]),
        {
            slot: KeyValue(*(stack_tokens([person.projected[slot][which] for person in people]) for which in (0, 1)))
            for slot in slots
        },
    )


def stack_tokens(tokens: Sequence[Tensor]) -> Tensor:
    """Stacks the tokens of several identities, repeating whole sets if their numbers differ.

    Softmax attention over a set of keys and values does not change if the whole set is repeated. Identities that were
    encoded from different numbers of photos can therefore share one batch exactly, without a mask.

    Args:
        tokens: per identity (1, num_tokens_i, token_dim).
    Returns:
        (identities, least common multiple of the numbers of tokens, token_dim).
    Raises:
        ShapeMismatchError: the widths differ.
    """
    if len({part.shape[-1] for part in tokens}) > 1:
        widths = ", ".join(str(part.shape[-1]) for part in tokens)
        raise ShapeMismatchError(f"identity tokens are {widths} wide; use one adapter for all identities of a cast")
    length = math.lcm(*(part.shape[1] for part in tokens))
    return torch.cat([part.repeat(1, length // part.shape[1], 1) for part in tokens])


def _in_batches(network: Callable[..., Tensor], *inputs: Sequence[Tensor]) -> list[Tensor]:
    """Calls a network for people whose inputs have equal shapes at once; one output for each person."""
    people = list(zip(*inputs, strict=True))
    alike: defaultdict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
    for position, person in enumerate(people):
        alike[tuple(part.shape for part in person)].append(position)
    outputs: dict[int, Tensor] = {}
    for positions in alike.values():
        batch = network(
            *(torch.cat(parts) for parts in zip(*(people[position] for position in positions), strict=True))
        )
        outputs |= zip(positions, batch.chunk(len(positions)), strict=True)
    return [outputs[position] for position in range(len(people))]
