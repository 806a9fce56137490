import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.evaluation.facesim import CastScore, draw_scores, score_cast
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.faces.likeness import Portrait
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

CANVAS = Extent(768, 512)
RECOGNISER = "r"

fuzz = settings(deadline=None)


def axis(index: int) -> np.ndarray:
    return np.eye(8, dtype=np.float32)[index]


def mixed(index: int, cosine: float) -> np.ndarray:
    """An embedding at `cosine` to `axis(index)`, and at a right angle to the other first seven."""
    return cosine * axis(index) + math.sqrt(1 - cosine**2) * axis(7)


def face(box: Box, embedding: np.ndarray) -> Face:
    return Face(box, embeddings={RECOGNISER: 20 * embedding})


def portrait(index: int, box: Box | None) -> Portrait:
    return Portrait(f"Person {index}", 3 * axis(index), None if box is None else box.normalised(CANVAS))


def score(portraits, *faces, extent=CANVAS) -> CastScore:
    return score_cast(portraits, (PictureFaces(extent, faces),), recogniser=RECOGNISER, canvas=CANVAS)


BOX = Box(100, 100, 200, 220)
ELSEWHERE = Box(400, 100, 500, 220)


def test_a_face_in_its_place_scores_its_cosine():
    (person,) = score([portrait(0, BOX)], face(Box(105, 100, 205, 220), mixed(0, 0.6))).pictures[0]
    assert person.facesim == pytest.approx(0.6)
    assert person.likeness == pytest.approx(0.6)
    assert person.iou == pytest.approx(95 / 105)
    assert person.face == 0


def test_the_right_face_in_the_wrong_place_scores_0_and_its_likeness_is_told():
    result = score([portrait(0, BOX)], face(ELSEWHERE, mixed(0, 0.9)))
    (person,) = result.pictures[0]
    assert (person.facesim, person.face, person.iou) == (0.0, None, 0.0)
    assert person.likeness == pytest.approx(0.9)
    assert result.facesim == 0.0
    assert "no face has an IoU above 0.5" in result.report()


def test_swapped_people_score_what_stands_in_their_places():
    swapped = score(
        [portrait(0, BOX), portrait(1, ELSEWHERE)], face(BOX, mixed(1, 0.9)), face(ELSEWHERE, mixed(0, 0.9))
    )
    assert [person.face for person in swapped.pictures[0]] == [0, 1]
    assert swapped.facesim == pytest.approx(0.0)


def test_a_double_elsewhere_does_not_take_the_place_of_the_face_in_place():
    (person,) = score([portrait(0, BOX)], face(ELSEWHERE, mixed(0, 0.9)), face(BOX, mixed(0, 0.4))).pictures[0]
    assert (person.face, person.facesim) == (1, pytest.approx(0.4))


def test_a_stranger_in_the_place_scores_its_own_low_cosine():
    result = score([portrait(0, BOX)], face(BOX, mixed(0, -0.2)), face(ELSEWHERE, mixed(0, 0.8)))
    assert result.pictures[0][0].face == 0
    assert result.facesim == pytest.approx(-0.2)


@fuzz
@given(
    st.tuples(st.integers(0, 700), st.integers(0, 450), st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(-200, 200), st.integers(-200, 200), st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from([CANVAS, Extent(1536, 1024), Extent(384, 256)]),
)
def test_the_iou_rule_agrees_with_exact_arithmetic(meant, shift, extent):
    """Face boxes go through fractions of the picture and back; the rule is `IoU > 1/2` in rational numbers."""
    x, y, width, height = meant
    dx, dy, found_width, found_height = shift
    scale = Fraction(extent.width, CANVAS.width)
    overlap_x = max(min(x + width, x + dx + found_width) - max(x, x + dx), 0)
    overlap_y = max(min(y + height, y + dy + found_height) - max(y, y + dy), 0)
    overlap = overlap_x * overlap_y
    iou = Fraction(overlap, width * height + found_width * found_height - overlap)
    found = Box(x + dx, y + dy, x + dx + found_width, y + dy + found_height).scaled(float(scale), float(scale))
    result = score([portrait(0, Box(x, y, x + width, y + height))], face(found, axis(0)), extent=extent)
    assert result.facesim == pytest.approx(1.0 if iou > Fraction(1, 2) else 0.0)


@fuzz
@given(st.integers(0, 600), st.integers(0, 400), st.integers(1, 150), st.integers(1, 100))
def test_an_iou_of_exactly_one_half_scores_0(x, y, half_width, height):
    """Half of the box, in any position that rounding can make awkward, and a hair more than half."""
    whole = Box(x, y, x + 2 * half_width, y + height)
    half = Box(x, y, x + half_width, y + height)
    more = Box(x, y, x + half_width + 0.01, y + height)
    assert score([portrait(0, whole)], face(half, axis(0))).facesim == 0.0
    assert score([portrait(0, half)], face(whole, axis(0))).facesim == 0.0
    assert score([portrait(0, whole)], face(more, axis(0))).facesim == pytest.approx(1.0)


@fuzz
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_mean_is_the_best_that_any_assignment_gives(num_people, num_faces, seed):
    rng = np.random.default_rng(seed)
    people, found = rng.random((num_people, 8)), rng.random((num_faces, 8))  # cosines of at least 0
    boxes = [Box(100, 100, 200, 200).scaled(1 + shift, 1) for shift in rng.integers(0, 3, num_people + num_faces)]
    portraits = [Portrait(str(i), people[i], boxes[i].normalised(CANVAS)) for i in range(num_people)]
    faces = [face(boxes[num_people + k], found[k]) for k in range(num_faces)]
    gated = np.zeros((num_people, num_faces))
    for i in range(num_people):
        for k in range(num_faces):
            if boxes[i].iou(boxes[num_people + k]) > 0.5 + 1e-9:
                gated[i, k] = people[i] @ found[k] / np.linalg.norm(people[i]) / np.linalg.norm(found[k])
    table = gated if num_people <= num_faces else gated.T
    orders = permutations(range(table.shape[1]), table.shape[0])
    best = max(sum(table[i, k] for i, k in enumerate(order)) for order in orders)
    result = score(portraits, *faces)
    assert result.facesim * num_people == pytest.approx(best, abs=1e-5)
    taken = [person.face for person in result.pictures[0] if person.face is not None]
    assert len(set(taken)) == len(taken)
    order = rng.permutation(num_people)
    shuffled = score([portraits[i] for i in order], *faces)
    assert [p.name for p in shuffled.pictures[0]] == [str(i) for i in order]
    assert shuffled.facesim == pytest.approx(result.facesim)


def test_without_face_boxes_facesim_is_not_a_number_and_likeness_is_told():
    result = score([portrait(0, None), portrait(1, None)], face(BOX, mixed(1, 0.7)), face(ELSEWHERE, mixed(0, 0.5)))
    assert math.isnan(result.facesim)
    assert result.likeness == pytest.approx(0.6)
    assert [person.face for person in result.pictures[0]] == [1, 0]
    assert result.report().splitlines()[0] == (
        "FaceSim: n/a, the cast has no face boxes (2 people in 1 picture; mean likeness 0.600 of those without a face "
        "box, wherever they are)"
    )


def test_a_person_for_whom_no_face_is_left_counts_as_0():
    result = score([portrait(0, None), portrait(1, None)], face(BOX, mixed(1, 0.7)))
    assert result.likeness == pytest.approx(0.35)
    assert score([portrait(0, BOX)]).facesim == 0.0
    assert score([portrait(0, None)]).likeness == 0.0


def test_a_batch_is_reported_line_by_line():
    people = [portrait(0, BOX), portrait(1, None)]
    pictures = (
        PictureFaces(CANVAS, (face(BOX, mixed(0, 0.5)), face(ELSEWHERE, mixed(1, 0.25)))),
        PictureFaces(Extent(1536, 1024), ()),
    )
    result = score_cast(people, pictures, recogniser=RECOGNISER, canvas=CANVAS)
    assert result.facesim == pytest.approx(0.25)
    assert result.report() == "\n".join(
        [
            "FaceSim: 0.250 (2 people in 2 pictures; mean likeness 0.125 of those without a face box, "
            "wherever they are)",
            "",
            "picture  person       FaceSim  likeness  IoU    face",
            "1        #1 Person 0  0.500    0.500     1.000  face 1",
            "1        #2 Person 1  n/a      0.250     n/a    face 2",
            "2        #1 Person 0  0.000    n/a       n/a    no face found",
            "2        #2 Person 1  n/a      n/a       n/a    no face found",
        ]
    )


def test_wrong_input_is_refused():
    with pytest.raises(ShapeMismatchError, match="picture 1 is 512x512, but the cast was made for 768x512"):
        score([portrait(0, BOX)], extent=Extent(512, 512))
    with pytest.raises(InvalidInputError, match="0 people in 1 pictures"):
        score([])
    with pytest.raises(InvalidInputError, match="face 1 was not seen by the recogniser other"):
        score_cast(
            [portrait(0, BOX)], (PictureFaces(CANVAS, (face(BOX, axis(0)),)),), recogniser="other", canvas=CANVAS
        )


def test_the_drawing_shows_places_dashed_faces_solid_and_nobody_grey():
    people = [portrait(0, BOX), portrait(1, ELSEWHERE)]
    found = Box(100, 104, 204, 220)
    stranger = Box(600, 300, 700, 420)
    pictures = (PictureFaces(CANVAS, (face(found, mixed(0, 0.9)), face(stranger, axis(6)))),) * 2
    result = score_cast(people, pictures, recogniser=RECOGNISER, canvas=CANVAS)
    drawn = draw_scores(result, people, pictures=pictures, images=torch.zeros(2, 512, 768, 3))
    assert drawn.shape == (2, 512, 768, 3)
    assert torch.equal(drawn[0], drawn[1])
    orange, blue = torch.tensor([230, 159, 0]) / 255, torch.tensor([86, 180, 233]) / 255

    def share_of(column, top, bottom, color):
        return (drawn[0, top:bottom, column] == color).all(-1).float().mean().item()

    assert share_of(204, 110, 215, orange) == 1.0  # the face's right side
    assert 0.3 < share_of(500, 110, 215, blue) < 0.7  # the empty place's right side
    assert share_of(700, 310, 415, torch.full((3,), 150 / 255)) == 1.0
    with pytest.raises(ShapeMismatchError, match="2 pictures were scored, but there are 1 to draw on"):
        draw_scores(result, people, pictures=pictures, images=torch.zeros(1, 512, 768, 3))
