"""Tables: means and standard errors by hand, and paired differences."""

import numpy as np
import pytest
from fpga.fpga_core.evaluation.table import Spread, markdown, paired, share_of

ROWS = {
    "broken": [{"FaceSim": 0.1 * number} for number in range(6)],
    "restored": [{"FaceSim": 0.1 * number + 0.3} for number in range(6)],
}


def test_rows_on_the_same_pictures_are_compared_picture_by_picture():
    difference = paired(ROWS, "restored", "broken", measure="FaceSim")
    assert difference.mean == pytest.approx(0.3) and difference.error == pytest.approx(0)
    assert Spread.of([row["FaceSim"] for row in ROWS["restored"]]).error > 0.05
    text = markdown(ROWS, references=dict.fromkeys(ROWS, "broken"))
    assert text.splitlines()[0] == "|  | FaceSim | FaceSim, paired | n |"
    assert "| restored | 0.550 ± 0.076 | +0.300 ± 0.000 | 6 |" in text and text.endswith("to *broken*.")


def test_rows_on_other_pictures_are_not_compared():
    with pytest.raises(ValueError, match="longer"):
        paired({**ROWS, "fewer": ROWS["broken"][:3]}, "fewer", "broken", measure="FaceSim")


def test_a_share_of_the_ceiling_is_that_of_the_means_and_its_error_is_paired():
    """Every picture reaches three quarters of what it could: the share has no error, though the pictures differ."""
    rows = {"ceiling": [{"FaceSim": x} for x in (0.4, 0.6, 0.8)], "ours": [{"FaceSim": x} for x in (0.3, 0.45, 0.6)]}
    share = share_of(rows, "ours", "ceiling", measure="FaceSim")
    assert share.mean == pytest.approx(0.75) and share.error == pytest.approx(0)
    text = markdown(rows, ceilings={"ours": "ceiling"})
    assert "| ours | 0.450 ± 0.087 | 0.75 | 3 |" in text and "| ceiling | 0.600 ± 0.115 |  | 3 |" in text


def test_only_zeros_are_shown_as_an_exact_zero():
    assert str(Spread.of([0.0, 0.0, 0.0])) == "0" and str(Spread.of([0.0, 1e-6])) == "0.000 ± 0.000"


def test_pictures_without_a_measure_are_left_out_of_its_mean():
    assert Spread.of([1.0, float("nan"), 3.0]).mean == 2


def test_figures_are_numpys_by_hand():
    ours, theirs = np.random.default_rng(0).normal(size=(2, 30))
    rows = {name: [{"x": value} for value in values] for name, values in (("ours", ours), ("theirs", theirs))}
    alone, difference = Spread.of(ours), paired(rows, "ours", "theirs", measure="x")
    away = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = sum(away) / 30
    assert alone.mean == pytest.approx(np.mean(ours)) and alone.error == pytest.approx(np.std(ours, ddof=1) / 30**0.5)
    assert difference.mean == pytest.approx(mean)
    assert difference.error == pytest.approx((sum((x - mean) ** 2 for x in away) / 29 / 30) ** 0.5)


def test_a_pair_counts_only_if_both_have_the_measure():
    rows = {"ours": [{"x": 3.0}, {"x": float("nan")}, {"x": 2.0}], "theirs": [{"x": 1.0}, {"x": 9.0}, {"x": 1.0}]}
    assert paired(rows, "ours", "theirs", measure="x").mean == 1.5
