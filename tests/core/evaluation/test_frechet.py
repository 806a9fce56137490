"""The Fréchet distance, compared with the plain formula and with known cases."""

import numpy as np
import pytest
import scipy.linalg
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.evaluation.frechet import frechet_distance

RNG = np.random.default_rng(0)


def plain(first: np.ndarray, second: np.ndarray) -> float:
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    away = first.mean(axis=0) - second.mean(axis=0)
    return float(away @ away + np.trace(covariances[0] + covariances[1] - 2 * np.real(root)))


def test_is_the_formula():
    first, second = RNG.normal(size=(60, 8)), RNG.normal(1, 2, (40, 8)) @ RNG.normal(size=(8, 8))
    assert frechet_distance(first, second) == pytest.approx(plain(first, second), rel=1e-8)


def test_is_zero_for_the_same_set_with_fewer_pictures_than_features():
    features = RNG.normal(size=(5, 32))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_is_the_square_of_a_shift():
    features = RNG.normal(size=(50, 4))
    assert frechet_distance(features, features + [3, 0, 0, 4]) == pytest.approx(25)


@pytest.mark.parametrize("second", [np.zeros((1, 4)), np.zeros((5, 3)), np.zeros(4)])
def test_sets_that_cannot_be_compared_are_refused(second):
    with pytest.raises(InvalidInputError, match="cannot be compared"):
        frechet_distance(np.zeros((5, 4)), second)
