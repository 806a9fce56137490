"""The laboratory's tables: paired differences, and halves that do not share a picture."""

import pytest
from fpga.laboratory.tables import Spread, choosing, confirming, is_chosen, markdown, paired, share_of

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


def test_no_case_is_in_both_halves_and_none_is_lost():
    halves = choosing(range(7)), confirming(range(7))
    assert sorted([*halves[0], *halves[1]]) == list(range(7))
    assert not set(halves[0]) & set(halves[1])


def test_a_share_of_the_ceiling_is_that_of_the_means_and_its_error_is_paired():
    """Every picture reaches three quarters of what it could: the share has no error, though the pictures differ."""
    rows = {"ceiling": [{"FaceSim": x} for x in (0.4, 0.6, 0.8)], "ours": [{"FaceSim": x} for x in (0.3, 0.45, 0.6)]}
    share = share_of(rows, "ours", "ceiling", "FaceSim")
    assert share.mean == pytest.approx(0.75) and share.error == pytest.approx(0)
    text = markdown(rows, ceilings={"ours": "ceiling"})
    assert "| ours | 0.450 ± 0.087 | 0.75 | 3 |" in text and "| ceiling | 0.600 ± 0.115 |  | 3 |" in text


def measured(facesim: float, error: float, noise: float = 0.01) -> list[dict[str, float]]:
    return [{"FaceSim": facesim + noise * (-1) ** n, "pose error": error + noise * (-1) ** n} for n in range(20)]


@pytest.mark.parametrize(
    ("facesim", "error", "replaces"),
    [(0.6, 0.1, True), (0.5, 0.1, False), (0.5001, 0.05, False), (0.6, 0.2, False), (0.4, 0.05, False)],
)
def test_a_setting_replaces_another_only_if_it_is_more_alike_and_nothing_is_worse(facesim, error, replaces):
    rows = {"default": [{"FaceSim": 0.5, "pose error": 0.1}] * 20, "other": measured(facesim, error)}
    assert is_chosen(rows, "other", "default", kept=("pose error",)) is replaces


def test_only_zeros_are_shown_as_an_exact_zero():
    assert str(Spread.of([0.0, 0.0, 0.0])) == "0" and str(Spread.of([0.0, 1e-6])) == "0.000 ± 0.000"


def test_pictures_without_a_measure_are_left_out_of_its_mean():
    assert Spread.of([1.0, float("nan"), 3.0]).mean == 2
