"""Matching: place first, likeness second, elimination last."""

import itertools

import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.restoration.matching import MatchBy, match_faces
from hypothesis import given
from hypothesis import strategies as st

LEFT, MIDDLE, RIGHT = Box(0.1, 0.2, 0.2, 0.4), Box(0.45, 0.2, 0.55, 0.4), Box(0.8, 0.2, 0.9, 0.4)


def members(matches) -> list[int | None]:
    return [match.member if match else None for match in matches]


def test_place_comes_before_likeness():
    likeness = np.array([[0.1, 0.9], [0.9, 0.1]])  # a broken face may resemble anyone
    matches = match_faces([LEFT, RIGHT], [LEFT, RIGHT], likeness)
    assert members(matches) == [0, 1]
    assert matches[0].reason == "by place, overlap 1.00"


def test_a_face_inside_a_large_region_belongs_to_it():
    half = Box(0.5, 0.0, 1.0, 1.0)
    assert members(match_faces([LEFT, RIGHT], [half, None])) == [1, 0]


def test_in_a_region_with_several_faces_likeness_decides():
    half = Box(0.4, 0.0, 1.0, 1.0)
    likeness = np.array([[0.0, 0.0], [0.1, 0.0], [0.3, 0.0]])
    assert members(match_faces([LEFT, MIDDLE, RIGHT], [half, LEFT], likeness)) == [1, None, 0]


def test_likeness_serves_where_nothing_is_placed_and_is_globally_best():
    """Greedy would give face 0 to member 0 (0.8) and leave 0.1 for the other: the sum 0.7 + 0.75 is better."""
    likeness = np.array([[0.8, 0.7], [0.75, 0.1]])
    matches = match_faces([LEFT, RIGHT], [None, None], likeness)
    assert members(matches) == [1, 0]
    assert matches[0].reason == "by likeness 0.70"


def test_weak_likeness_matches_nobody_but_the_last_pair_remains():
    likeness = np.array([[0.1, 0.05], [0.0, 0.15]])
    assert members(match_faces([LEFT, RIGHT], [None, None], likeness)) == [None, None]
    only = match_faces([LEFT], [None], np.array([[0.05]]))
    assert only[0].member == 0 and only[0].reason == "the only one left"
    assert members(match_faces([LEFT, RIGHT], [LEFT, None], None)) == [0, 1]
    assert members(match_faces([LEFT, RIGHT], [None], None)) == [None, None]


def test_likeness_that_could_not_be_measured_counts_as_none():
    likeness = np.array([[np.nan, np.nan], [0.6, np.nan]])
    assert members(match_faces([LEFT, RIGHT], [None, None], likeness)) == [1, 0]


def test_order_and_first():
    faces = [RIGHT, LEFT, MIDDLE]
    assert members(match_faces(faces, [LEFT, RIGHT], by=MatchBy.ORDER)) == [0, 1, None]
    assert members(match_faces(faces, [LEFT, RIGHT], by=MatchBy.FIRST)) == [0, 0, 0]


def test_no_faces_no_matches_and_no_members_is_an_error():
    assert match_faces([], [LEFT]) == ()
    with pytest.raises(InvalidInputError, match="the cast is empty"):
        match_faces([LEFT], [])
    with pytest.raises(InvalidInputError, match=r"likeness is \(1, 2\) for 1 faces and 1 identities"):
        match_faces([LEFT], [None], np.zeros((1, 2)))


@given(seed=st.integers(0, 2**31), num_faces=st.integers(0, 4), num_members=st.integers(1, 4), placed=st.booleans())
def test_each_member_at_most_once_and_no_better_assignment_exists(seed, num_faces, num_members, placed):
    rng = np.random.default_rng(seed)
    likeness = rng.uniform(0, 1, (num_faces, num_members))
    x, y = rng.uniform(0, 0.9, (2, num_faces))
    faces = [Box(a, b, a + 0.1, b + 0.1) for a, b in zip(x, y, strict=True)]
    places = [faces[n] if placed and n < num_faces else None for n in range(num_members)]
    chosen = [member for member in members(match_faces(faces, places, likeness)) if member is not None]
    assert len(chosen) == len(set(chosen))
    if placed or not num_faces:
        return
    total = sum(
        likeness[face, match.member]
        for face, match in enumerate(match_faces(faces, places, likeness))
        if match and match.reason.startswith("by likeness")
    )
    padded = np.zeros((max(num_faces, num_members),) * 2)
    padded[:num_faces, :num_members] = np.where(likeness >= 0.2, likeness, 0)
    best = max(padded[range(len(padded)), order].sum() for order in itertools.permutations(range(len(padded))))
    assert total == pytest.approx(best)


def test_in_order_a_person_who_is_muted_leaves_their_face_to_nobody():
    faces = [Box(x, 0.1, x + 0.1, 0.3) for x in (0.1, 0.4, 0.7)]
    matches = match_faces(faces, [None, None], by=MatchBy.ORDER, numbers=(1, 3))
    assert [match and match.member for match in matches] == [0, None, 1]
