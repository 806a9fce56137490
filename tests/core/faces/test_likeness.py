from itertools import permutations

import numpy as np
import pytest
from fpga.fpga_core.faces.likeness import best_assignment, cosine_similarities
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

scores = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-1, 1))
)


def best_sum(values: np.ndarray) -> float:
    """Finds the best sum by trying every pairing."""
    if values.shape[0] > values.shape[1]:
        values = values.T
    num_rows, num_columns = values.shape
    orders = permutations(range(num_columns), num_rows)
    return max(sum(values[row, column] for row, column in enumerate(order)) for order in orders)


@settings(deadline=None)
@given(scores)
def test_the_assignment_is_the_best_of_all_pairings(values):
    pairs = best_assignment(values)
    assert len(pairs) == min(values.shape) == len(set(pairs.values()))
    assert sum(values[r, c] for r, c in pairs.items()) == pytest.approx(best_sum(values))


def test_similarities_are_cosines_whatever_the_length():
    people = np.array([[3.0, 0.0], [0.0, 0.1]])
    faces = np.array([[1.0, 1.0], [-20.0, 0.0], [0.0, 0.0]], np.float32)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(cosine_similarities(people, faces), [[half, -1, 0], [half, 0, 0]], atol=1e-7)
