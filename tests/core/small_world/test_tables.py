"""The laboratory's tables: paired differences, and halves that do not share a picture."""

import pytest
from fpga.laboratory.tables import Spread, choosing, confirming, markdown, paired

ROWS = {
    "broken": [{"FaceSim": 0.1 * number} for number in range(6)],
    "restored": [{"FaceSim": 0.1 * number + 0.3} for number in range(6)],
}


def test_rows_on_the_same_pictures_are_compared_picture_by_picture():
    difference = paired(ROWS, "restored", "broken", "FaceSim")
    assert difference.mean == pytest.approx(0.3) and difference.error == pytest.approx(0)
    assert Spread.of([row["FaceSim"] for row in ROWS["restored"]]).error > 0.05
    text = markdown(ROWS, references=dict.fromkeys(ROWS, "broken"))
    assert text.splitlines()[0] == "|  | FaceSim | FaceSim, paired | n |"
    assert "| restored | 0.550 ± 0.076 | +0.300 ± 0.000 | 6 |" in text and text.endswith("to *broken*.")


def test_rows_on_other_pictures_are_not_compared():
    with pytest.raises(ValueError, match="longer"):
        paired({**ROWS, "fewer": ROWS["broken"][:3]}, "fewer", "broken", "FaceSim")


def test_no_picture_is_in_both_halves_and_none_is_lost():
    halves = choosing(ROWS)["broken"], confirming(ROWS)["broken"]
    assert sorted(row["FaceSim"] for half in halves for row in half) == [row["FaceSim"] for row in ROWS["broken"]]
    assert not [row for row in halves[0] if row in halves[1]]


def test_pictures_without_a_measure_are_left_out_of_its_mean():
    assert Spread.of([1.0, float("nan"), 3.0]).mean == 2
