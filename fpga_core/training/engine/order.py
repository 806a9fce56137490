"""The samples and random draws of an iteration. They depend on the seed alone, so that training can resume.

The rule: an iteration consists of `num_slots` slots (processes times accumulated micro-batches) of `batch_size`
samples. Slot `s` of iteration `i` takes the samples from position `(i * num_slots + s) * batch_size` of an endless
sequence of shuffled epochs, and draws from generators seeded by (seed, i, s). Process `p` of `n` computes the slots
`p`, `n + p`, `2 n + p`, ... Two processes therefore compute the same as one process that accumulates two micro-batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InvalidInputError


def derive_seed(*parts: int | str) -> int:
    """Returns a seed of 63 bits that depends on all parts. Generators of neighbouring iterations are unrelated."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def validation_generator(seed: int, batch: int) -> torch.Generator:
    """Returns the generator of a batch of samples held out, on the CPU: the same in every iteration."""
    return torch.Generator().manual_seed(derive_seed("validation", seed, batch))


def slot_generator(seed: int, iteration: int, slot: int) -> torch.Generator:
    """Returns the generator of one slot of one iteration, always on the CPU."""
    return torch.Generator().manual_seed(derive_seed("loss", seed, iteration, slot))


def split_held_out(num_samples: int, held_out: int, seed: int) -> tuple[Sequence[int], Sequence[int]]:
    """Returns the numbers of the samples that are trained on, and of those held out, each in order.

    Raises:
        InvalidInputError: no sample would be left to train on.
    """
    if not held_out:
        return range(num_samples), ()
    if held_out >= num_samples:
        raise InvalidInputError(f"{held_out} samples are to be held out, but the set has {num_samples}; hold out fewer")
    generator = torch.Generator().manual_seed(derive_seed("held out", seed))
    order = [int(number) for number in torch.randperm(num_samples, generator=generator)]
    return sorted(order[held_out:]), sorted(order[:held_out])


class SampleOrder:
    """The endless sequence of shuffled epochs.

    Args:
        samples: numbers of the samples that are trained on, at least one.
        seed: the same seed gives the same order.
        batch_size: samples per slot.
        num_slots: slots per iteration.
    """

    def __init__(self, samples: Sequence[int], *, seed: int, batch_size: int, num_slots: int) -> None:
        self._samples = samples
        self._seed = seed
        self._batch_size = batch_size
        self._num_slots = num_slots
        self._epochs: dict[int, Tensor] = {}

    def indices(self, iteration: int, slot: int) -> list[int]:
        """Returns the numbers of the samples of a slot. A batch can begin in one epoch and end in the next."""
        first = (iteration * self._num_slots + slot) * self._batch_size
        return [self._at(position) for position in range(first, first + self._batch_size)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self._samples))
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(derive_seed("epoch", self._seed, epoch))
            self._epochs = {number: order for number, order in self._epochs.items() if number == epoch - 1}
            self._epochs[epoch] = torch.randperm(len(self._samples), generator=generator)
        return self._samples[int(self._epochs[epoch][place])]
