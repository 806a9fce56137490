"""Whatever an analyser delivers or raises, it is a face or a named error."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from fpga.fpga_core.errors import DetectionError
from fpga.fpga_core.faces.detection import detect_faces
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.faces.preview import draw_numbers
from fpga.fpga_core.faces.seeing import find_faces
from fpga.fpga_core.geometry import Box

PICTURES = [np.zeros((48, 64, 3), np.uint8)] * 2
GOOD = Face(Box(10, 5, 30, 30), 0.9, np.full((68, 2), 12.0), {"ab": np.ones(512)}, np.full((5, 2), 12.0))
NAN, INF = float("nan"), float("inf")


@dataclass
class Scripted:
    answer: object
    description: str = "scripted on CPU"
    recogniser: str | None = "ab"

    def find_faces(self, pictures):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def with_value(array, value):
    changed = np.array(array, float)
    changed.flat[3] = value
    return changed


BAD = {
    "a box a million pixels wide": replace(GOOD, box=Box(0, 0, 1e6, 1e6)),
    "a box that is NaN": replace(GOOD, box=Box(NAN, 0, 10, 10)),
    "an infinite box": replace(GOOD, box=Box(0, 0, 10, INF)),
    "a score of NaN": replace(GOOD, score=NAN),
    "infinite landmarks": replace(GOOD, landmarks=with_value(GOOD.landmarks, INF)),
    "landmarks far away": replace(GOOD, landmarks=with_value(GOOD.landmarks, -1e6)),
    "an unknown layout": replace(GOOD, landmarks=np.zeros((17, 2))),
    "landmarks in three dimensions": replace(GOOD, landmarks=np.zeros((68, 3))),
    "flat key points": replace(GOOD, keypoints=np.zeros(10)),
    "infinite key points": replace(GOOD, keypoints=with_value(GOOD.keypoints, -INF)),
    "a short embedding": replace(GOOD, embeddings={"ab": np.ones(128)}),
    "an embedding in a batch": replace(GOOD, embeddings={"ab": np.ones((1, 512))}),
    "an embedding with NaN": replace(GOOD, embeddings={"ab": with_value(np.ones(512), NAN)}),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_a_face_is_refused_with_the_analyser_s_name(kind):
    with pytest.raises(DetectionError, match=r"'scripted on CPU' is not usable: in picture 2 \(64x48\).*; use another"):
        find_faces(Scripted([(GOOD,), (GOOD, BAD[kind])]), PICTURES)


def test_faces_partly_outside_and_points_that_were_not_seen_are_faces():
    face = replace(GOOD, box=Box(-300, -20, 400, 30), landmarks=with_value(GOOD.landmarks, NAN))
    assert find_faces(Scripted([(face,), ()]), PICTURES) == [(face,), ()]


@pytest.mark.parametrize(
    "error", [ValueError("cannot reshape"), IndexError(), AssertionError(), KeyError("bbox"), MemoryError()]
)
def test_whatever_an_analyser_raises_is_named(error):
    with pytest.raises(DetectionError, match="the face analysis 'scripted on CPU' failed; use another") as caught:
        detect_faces(PICTURES, Scripted(error))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("answer", [[()], None, 7, [None, None]])
def test_an_answer_of_another_form_is_named(answer):
    with pytest.raises(DetectionError, match="'scripted on CPU'"):
        find_faces(Scripted(answer), PICTURES)


def test_the_number_on_the_preview_stays_in_the_picture():
    """A box at the limit of what is let through; a million pixels crashed the process here."""
    wide = replace(GOOD, box=Box(-512, -512, 512, 512))
    found = detect_faces(PICTURES[:1], Scripted([(wide,)]))
    assert draw_numbers(PICTURES[:1], found).shape == (1, 48, 64, 3)
