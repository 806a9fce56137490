"""Copy-paste: the formula on angles that are known, and its ends."""

import math

import numpy as np
import pytest
from fpga.fpga_core.evaluation.copy_paste import copy_paste


def at(degrees: float) -> np.ndarray:
    """An embedding in a plane, at an angle to the reference."""
    return 5 * np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0])


@pytest.mark.parametrize(("degrees", "expected"), [(0, 1), (60, -1), (30, 0), (15, 0.5), (80, -1), (-20, 1)])
def test_a_face_between_reference_and_target_is_placed_by_its_angles(degrees, expected):
    assert copy_paste(at(degrees), target=at(60), reference=at(0)) == pytest.approx(expected)


def test_it_does_not_depend_on_how_alike_the_face_is_if_it_is_as_near_to_both():
    away = np.array([0, 0, 9.0])
    assert copy_paste(at(30) + away, target=at(60), reference=at(0)) == pytest.approx(0)


def test_it_stays_between_its_ends():
    for generated, target, reference in np.random.default_rng(0).normal(size=(200, 3, 6)):
        assert -1 - 1e-9 <= copy_paste(generated, target=target, reference=reference) <= 1 + 1e-9


def test_nothing_is_told_if_the_target_is_the_reference():
    assert math.isnan(copy_paste(at(10), target=3 * at(40), reference=at(40)))
