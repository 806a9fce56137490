"""Scores side by side, and the choice by one of them."""

import math

import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.evaluation.keeping import IfNone, keep_alike
from fpga.fpga_core.evaluation.scores import MEASURES, NEEDS, PictureScores, face_scores
from fpga.fpga_core.faces.face import PictureFaces
from fpga.fpga_core.faces.likeness import Portrait
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from hypothesis import given
from hypothesis import strategies as st
from painted_faces import ANNA, BEA, STRANGER, ColorAnalysis, painted

KEY = ColorAnalysis.recogniser
CANVAS = Extent(96, 64)
NAN = math.nan
figures = st.lists(st.one_of(st.floats(-1, 1), st.just(NAN)), min_size=1, max_size=8)


def embedding(color) -> np.ndarray:
    return np.array([*color, *[0] * 509], np.float32)


def portrait(color, *place) -> Portrait:
    box = Box(place[0], place[1], place[0] + place[2], place[1] + place[3]).normalised(CANVAS) if place else None
    return Portrait(str(color), embedding(color), face_box=box)


def seen(*pictures) -> list[PictureFaces]:
    return [PictureFaces(CANVAS, faces) for faces in ColorAnalysis().find_faces(pictures)]


def scores(*values, name: str = "FaceSim") -> PictureScores:
    return PictureScores(tuple({name: value} for value in values))


def test_faces_are_scored_as_the_paper_does():
    """A face in place counts with its cosine, one elsewhere and one that is missing count 0."""
    people = [portrait((200, 0, 0), 10, 10, 20, 20), portrait(BEA, 60, 10, 20, 20)]
    right = painted(((255, 255, 0), 10, 10, 20, 20), (BEA, 60, 10, 20, 20))  # Anna at 45 degrees
    moved = painted((ANNA, 35, 40, 20, 20), (BEA, 60, 10, 20, 20))
    empty = painted()
    found = face_scores(people, seen(right, moved, empty), recogniser=KEY, canvas=CANVAS)
    assert [row["FaceSim"] for row in found] == pytest.approx([(2**-0.5 + 1) / 2, 0.5, 0.0])
    assert found[0]["bleed"] == pytest.approx(0.0)
    assert math.isnan(found[2]["bleed"])
    assert all("likeness" not in row and "copy-paste" not in row for row in found)


def test_people_without_a_place_are_alike_wherever_they_are():
    found = face_scores([portrait(ANNA)], seen(painted((ANNA, 50, 30, 9, 9)), painted()), recogniser=KEY, canvas=CANVAS)
    assert found == [{"likeness": pytest.approx(1.0)}, {"likeness": 0.0}]


def test_copying_is_one_for_the_reference_and_minus_one_for_the_target():
    target, stranger = embedding((255, 255, 0)), embedding(STRANGER)
    pictures = seen(painted((ANNA, 9, 9, 9, 9)), painted(((255, 255, 0), 9, 9, 9, 9)), painted())
    found = face_scores([portrait(ANNA)], pictures, recogniser=KEY, canvas=CANVAS, targets=[target])
    assert [row["copy-paste"] for row in found[:2]] == pytest.approx([1.0, -1.0])
    assert math.isnan(found[2]["copy-paste"])
    with pytest.raises(ShapeMismatchError, match="1 people have 2 targets"):
        face_scores([portrait(ANNA)], pictures, recogniser=KEY, canvas=CANVAS, targets=[target, stranger])


def test_the_report_is_a_table_that_the_queue_reads():
    from fpga.commands.queue.outcome import table_means

    table = PictureScores(({"FaceSim": 0.25, "bleed": 0.5}, {"FaceSim": 0.75, "bleed": NAN}))
    assert table.report().splitlines() == [
        "picture  FaceSim  bleed (low)",
        "1        0.250    0.500",
        "2        0.750    n/a",
        "mean     0.500    0.500",
    ]
    assert table_means(table.report()) == {"FaceSim": 0.5, "bleed": 0.5}


def test_every_score_says_what_it_needs():
    assert NEEDS.keys() == set(MEASURES)


@given(figures, st.floats(-1, 1), st.integers(0, 9), st.sampled_from(IfNone), st.sampled_from(["FaceSim", "bleed"]))
def test_what_is_kept(values, threshold, at_most, if_none, name):
    """Every picture goes one way; what is kept is good enough, best first, and nothing better is set aside."""
    choice = keep_alike(scores(*values, name=name), name, threshold=threshold, at_most=at_most, if_none=if_none)
    sign = -1 if name == "bleed" else 1
    assert sorted(choice.kept + choice.aside) == list(range(len(values)))
    assert list(choice.aside) == sorted(choice.aside)
    merits = [sign * values[index] for index in choice.kept]
    assert merits == sorted(merits, reverse=True) and not any(map(math.isnan, merits))
    good = [value for value in values if sign * value >= sign * threshold]
    if good:
        assert len(choice.kept) == min(len(good), at_most or len(good))
        assert all(merit >= sign * threshold for merit in merits)
        left_out = [sign * values[index] for index in choice.aside if not math.isnan(values[index])]
        if len(choice.kept) < len(good):
            assert min(merits) >= max(left_out)
    else:
        known = [value for value in values if not math.isnan(value)]
        assert len(choice.kept) == (1 if if_none is IfNone.BEST and known else 0)
        assert not choice.kept or merits[0] == max(sign * value for value in known)
        assert len(choice.warnings) == 1
    assert bool(choice.warnings) == (not good)


def test_the_choice_in_words():
    choice = keep_alike(scores(0.2, 0.6, 0.5), "FaceSim", threshold=0.4)
    assert choice.report() == "kept 2 of 3: 2, 3\nFaceSim at least 0.4; the best has 0.600"
    none = keep_alike(scores(0.2, 0.1), "FaceSim", threshold=0.4)
    assert none.warnings == ("no picture has FaceSim at least 0.4, so nothing is sent on; the best has 0.200",)
    best = keep_alike(scores(0.5, name="bleed"), "bleed", threshold=0.4, if_none=IfNone.BEST)
    assert best.warnings == ("no picture has bleed at most 0.4; the best one is kept all the same, with 0.500",)


def test_a_score_that_was_not_measured_is_named():
    with pytest.raises(InvalidInputError, match="CLIP-T was not measured, only FaceSim; choose another score"):
        keep_alike(scores(0.2), "CLIP-T", threshold=0.4)
    with pytest.raises(InvalidInputError, match="-1 is less"):
        keep_alike(scores(0.2), "FaceSim", threshold=0.4, at_most=-1)
