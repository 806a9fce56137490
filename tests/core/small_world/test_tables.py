"""The laboratory's choices: halves that do not share a picture, and when a setting replaces another."""

import pytest
from fpga.laboratory.tables import choosing, confirming, is_chosen


def test_no_case_is_in_both_halves_and_none_is_lost():
    halves = choosing(range(7)), confirming(range(7))
    assert sorted([*halves[0], *halves[1]]) == list(range(7))
    assert not set(halves[0]) & set(halves[1])


def measured(facesim: float, error: float, noise: float = 0.01) -> list[dict[str, float]]:
    return [{"FaceSim": facesim + noise * (-1) ** n, "pose error": error + noise * (-1) ** n} for n in range(20)]


@pytest.mark.parametrize(
    ("facesim", "error", "replaces"),
    [(0.6, 0.1, True), (0.5, 0.1, False), (0.5001, 0.05, False), (0.6, 0.2, False), (0.4, 0.05, False)],
)
def test_a_setting_replaces_another_only_if_it_is_more_alike_and_nothing_is_worse(facesim, error, replaces):
    rows = {"default": [{"FaceSim": 0.5, "pose error": 0.1}] * 20, "other": measured(facesim, error)}
    assert is_chosen(rows, "other", "default", kept=("pose error",)) is replaces
