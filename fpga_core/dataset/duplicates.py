"""Near-duplicates in a whole set: pairs with nearly equal hashes or embeddings, found without comparing all with all.

Both kinds use bands (locality-sensitive hashing): a picture's bits are cut into bands of 16, and two pictures are
compared only if all bits of one band agree. The pairs are exact afterwards; bands only decide which are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .hashing import HASH_BITS

BAND_BITS = 16
DIRECTIONS = 32 * BAND_BITS
SEED = 20230711

BITS_SET: NDArray[np.uint8] = sum(
    ((np.arange(2**16) >> bit & 1).astype(np.uint8) for bit in range(16)), np.zeros(2**16, np.uint8)
)
"""How many bits of each number of 16 bits are set."""

Pairs = NDArray[np.int64]
"""(num_pairs, 2): places of two pictures, the smaller first, each pair once and in order."""

Duplicates = dict[int, int]
"""The place of a picture that is left out -> that of the picture that stays in its stead."""


def hash_duplicates(hashes: np.ndarray, rank: np.ndarray, *, max_distance: int) -> Duplicates:
    """Finds the pictures that look like another one, and decides which of them stays.

    The picture of the highest rank stays, and of equals the first. Whatever is left out is a near-duplicate of a
    picture that stays, so that both ends of a long chain of similar pictures stay.

    Args:
        hashes: (num, 32) uint8 of `hashing.perceptual_hash`.
        rank: (num,) how much each picture is worth, such as its number of pixels.
        max_distance: how many of the 256 bits may differ.
    Returns:
        What is left out. If up to 15 bits differ, nothing is missed; if 28 random bits differ, 98 % are found.
    Source: Manku, Jain, Das Sarma 2007, "Detecting near-duplicates for web crawling", with bands in two orders.
    """
    _, inverse = np.unique(hashes, axis=0, return_inverse=True)
    order = np.lexsort((np.arange(len(rank)), -rank))
    _, best = np.unique(inverse.ravel()[order], return_index=True)
    best = order[best]  # of those with the same hash
    stays = best[inverse.ravel()]
    kept = np.sort(best)
    dropped = _resolve(kept[_near_hashes(hashes[kept], max_distance)], rank)
    found = {place: int(first) for place, first in enumerate(stays.tolist()) if place != first}
    return {place: dropped.get(first, first) for place, first in found.items()} | dropped


def embedding_duplicates(embeddings: np.ndarray, rank: np.ndarray, *, min_similarity: float) -> Duplicates:
    """Finds faces whose embeddings are nearly the same: other cuts, colours or copies of one photograph.

    Args:
        embeddings: (num, dim) float, of any length but 0.
        rank: as in `hash_duplicates`.
        min_similarity: the smallest cosine similarity of near-duplicates.
    Returns:
        What is left out, as in `hash_duplicates`. At a similarity of 0.95, 99.8 % are found.
    Source: Charikar 2002, "Similarity estimation techniques from rounding algorithms".
    """
    directions = np.random.default_rng(SEED).standard_normal((embeddings.shape[1], DIRECTIONS)).astype(np.float32)
    unit = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    parts = np.array_split(unit, len(unit) // 65536 + 1)
    bands = np.concatenate([_bands((part @ directions > 0).astype(np.uint8)) for part in parts])

    def is_near(pairs: Pairs) -> np.ndarray:
        return np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]]) >= min_similarity

    return _resolve(_unique(pairs[is_near(pairs)] for pairs in _candidates(bands)), rank)


def _near_hashes(hashes: np.ndarray, max_distance: int) -> Pairs:
    bits = np.unpackbits(hashes, axis=1)
    places = np.arange(HASH_BITS)
    interleaved = places[np.argsort(places % (HASH_BITS // BAND_BITS), kind="stable")]  # a band has all frequencies
    mixed = np.random.default_rng(SEED).permutation(HASH_BITS)
    bands = np.concatenate([_bands(bits[:, order]) for order in (interleaved, mixed)], axis=1)
    words: NDArray[np.uint64] = np.reshape(np.frombuffer(hashes.tobytes(), np.uint64), (len(hashes), -1))

    def is_near(pairs: Pairs) -> np.ndarray:
        return _bit_counts(words[pairs[:, 0]] ^ words[pairs[:, 1]]) <= max_distance

    return _unique(pairs[is_near(pairs)] for pairs in _candidates(bands))


def _resolve(pairs: Pairs, rank: np.ndarray) -> Duplicates:
    """Goes through the pictures from the highest rank: one that is still there takes the place of its neighbours."""
    neighbours: dict[int, list[int]] = {}
    for first, second in pairs.tolist():
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    dropped: Duplicates = {}
    for place in sorted(neighbours, key=lambda place: (-rank[place], place)):
        if place not in dropped:
            dropped |= dict.fromkeys((other for other in neighbours[place] if other not in dropped), place)
    return dropped


def _bands(bits: np.ndarray) -> NDArray[np.uint16]:
    """Returns (num, num_bits / 16) bands of (num, num_bits) bits."""
    packed = np.packbits(bits, axis=1)
    return np.reshape(np.frombuffer(packed.tobytes(), np.uint16), (len(packed), -1))


def _candidates(bands: NDArray[np.uint16]) -> Iterator[Pairs]:
    """Yields the pairs that agree in a band, (num_pairs, 2) at a time; a pair can come several times."""
    for number in range(bands.shape[1]):
        order = np.argsort(bands[:, number], kind="stable")
        ordered: NDArray[np.uint16] = bands[order, number]
        places = np.arange(len(ordered))
        step = 1
        while len(places):
            places = places[places + step < len(ordered)]
            places = places[ordered[places] == ordered[places + step]]
            pairs = np.stack([order[places], order[places + step]], axis=1)
            yield np.sort(pairs, axis=1)
            step += 1


def _unique(parts: Iterator[Pairs]) -> Pairs:
    found = [part for part in parts if len(part)]
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)


def _bit_counts(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns how many bits of each row of (num, num_words) are set."""
    halves: NDArray[np.uint16] = np.reshape(np.frombuffer(words.tobytes(), np.uint16), (len(words), 4 * words.shape[1]))
    return BITS_SET[halves].sum(axis=1, dtype=np.int64)
