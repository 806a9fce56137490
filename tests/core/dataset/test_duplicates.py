"""Near-duplicates of many pictures, against a comparison of all with all."""

import numpy as np
import pytest
from fpga.fpga_core.dataset.duplicates import embedding_duplicates, hash_duplicates
from hypothesis import given
from hypothesis import strategies as st

NUM = 300


def copies_of(hashes: np.ndarray, num_bits: int, rng: np.random.Generator) -> np.ndarray:
    """Each hash with some of its bits flipped."""
    flips = np.zeros((len(hashes), 256), np.uint8)
    for row in flips:
        row[rng.choice(256, num_bits, replace=False)] = 1
    return hashes ^ np.packbits(flips, axis=1)


def distances(hashes: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(hashes, axis=1).astype(int)
    return (bits[:, None] != bits[None]).sum(axis=2)


@pytest.mark.parametrize("num_bits", [0, 3, 15])
def test_up_to_15_bits_nothing_is_missed(num_bits):
    rng = np.random.default_rng(num_bits)
    hashes = rng.integers(0, 256, (NUM, 32), dtype=np.uint8)
    both = np.concatenate([hashes, copies_of(hashes, num_bits, rng)])
    found = hash_duplicates(both, np.ones(2 * NUM), max_distance=15)
    assert found == {NUM + number: number for number in range(NUM)}


def test_most_with_28_bits_are_found_and_none_with_29():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 256, (NUM, 32), dtype=np.uint8)
    near = np.concatenate([hashes, copies_of(hashes, 28, rng)])
    assert len(hash_duplicates(near, np.ones(2 * NUM), max_distance=28)) >= 0.96 * NUM
    far = np.concatenate([hashes, copies_of(hashes, 29, rng)])
    assert hash_duplicates(far, np.ones(2 * NUM), max_distance=28) == {}


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 15))
def test_what_stays_is_different_and_what_goes_has_a_neighbour_that_stays(seed, num, max_distance):
    """Chains of pictures, each a little different from the one before."""
    rng = np.random.default_rng(seed)
    chain = [rng.integers(0, 256, (1, 32), dtype=np.uint8)]
    for _ in range(num - 1):
        chain.append(copies_of(chain[-1], int(rng.integers(0, 12)), rng))
    hashes, rank = np.concatenate(chain), rng.integers(0, 3, num)
    dropped = hash_duplicates(hashes, rank, max_distance=max_distance)
    apart = distances(hashes)
    stays = [place for place in range(num) if place not in dropped]
    assert stays
    assert all(apart[a, b] > max_distance for a in stays for b in stays if a != b)
    for place, other in dropped.items():
        assert other in stays and apart[place, other] <= max_distance
        assert (-rank[other], other) < (-rank[place], place)


def test_of_copies_the_largest_stays_and_of_equals_the_first():
    one, two = np.zeros((1, 32), np.uint8), np.full((1, 32), 255, np.uint8)
    hashes = np.concatenate([one, two, one, one, two])
    assert hash_duplicates(hashes, np.array([1, 5, 9, 9, 5]), max_distance=0) == {0: 2, 3: 2, 4: 1}


def test_equal_embeddings_of_any_length_are_one_face():
    rng = np.random.default_rng(2)
    faces = rng.standard_normal((NUM, 512))
    unit = faces / np.linalg.norm(faces, axis=1, keepdims=True)
    other = rng.standard_normal((NUM, 512))
    other -= (other * unit).sum(axis=1, keepdims=True) * unit
    other /= np.linalg.norm(other, axis=1, keepdims=True)

    def at(similarity: float) -> np.ndarray:
        return np.concatenate([faces, 17 * (similarity * unit + (1 - similarity**2) ** 0.5 * other)])

    near = embedding_duplicates(at(0.96), np.ones(2 * NUM), min_similarity=0.95)
    assert len(near) >= 0.99 * NUM and all(place == other + NUM for place, other in near.items())
    assert embedding_duplicates(at(0.94), np.ones(2 * NUM), min_similarity=0.95) == {}


def test_a_thousand_blank_pictures_take_no_time():
    """They share every band; comparing each with each would be half a million pairs, for each band."""
    hashes = np.zeros((20_000, 32), np.uint8)
    assert len(hash_duplicates(hashes, np.ones(20_000), max_distance=28)) == 19_999
