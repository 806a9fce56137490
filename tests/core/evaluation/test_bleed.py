"""Bleed: what a face shares with the people whose face it is not."""

import math

import numpy as np
import pytest
from fpga.fpga_core.evaluation.bleed import bleed
from fpga.fpga_core.evaluation.facesim import score_cast
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.faces.likeness import Portrait
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent

CANVAS = Extent(300, 100)
BOXES = [Box(100 * place, 0, 100 * place + 90, 90) for place in range(3)]


def bleed_of(people: np.ndarray, *faces: tuple[int, np.ndarray]) -> float:
    portraits = [Portrait(f"{n}", one, BOXES[n].normalised(CANVAS)) for n, one in enumerate(people)]
    picture = PictureFaces(CANVAS, tuple(Face(BOXES[place], embeddings={"r": seen}) for place, seen in faces))
    score = score_cast(portraits, [picture], recogniser="r", canvas=CANVAS)
    return bleed(score.pictures[0], portraits, picture=picture, recogniser="r")


def test_each_face_is_compared_with_everybody_else():
    faces = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0.5], [0.2, 0, 1, 0]])
    lengths = np.linalg.norm(faces, axis=1)
    expected = (0.5 / lengths[0] + 0 + 0 + 0 + 0.2 / lengths[2] + 0) / 6
    assert bleed_of(3 * np.eye(3, 4), *enumerate(faces)) == pytest.approx(expected)


def test_people_who_swapped_faces_have_the_most():
    people = np.eye(2, 4)
    assert bleed_of(people, *enumerate(people)) == 0
    assert bleed_of(people, (0, people[1]), (1, people[0])) == 1


def test_one_person_and_missing_faces_have_none():
    assert math.isnan(bleed_of(np.eye(1, 4), (0, np.ones(4))))
    assert math.isnan(bleed_of(np.eye(2, 4)))
    assert bleed_of(np.eye(2, 4), (0, np.array([1.0, 1, 0, 0]))) == pytest.approx(0.5**0.5)
