import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.keypoint_formats import read_pose_keypoints
from fpga.fpga_core.identity.drawing import EMPTY_DRAWING, read_drawing
from fpga.fpga_core.shapes import Extent

POSE = [[n / 20, n / 40] for n in range(18)]


@pytest.mark.parametrize("value", [None, {}, {"people": []}])
def test_an_empty_canvas_is_nobody(value):
    assert read_drawing(value) == EMPTY_DRAWING


def test_the_drawn_bodies_are_read_back_in_pixels_of_the_picture():
    """By the reader of POSE_KEYPOINT sockets, which knows nothing of drawings."""
    pose = [*POSE[:17], None]
    people = [{"name": "Anna", "head": [0.1, 0.1, 0.2, 0.2], "pose": pose}, {"head": [0, 0, 0.1, 0.1]}]
    canvas = Extent(800, 400)
    (picture,) = read_pose_keypoints(read_drawing({"people": people}).pose_keypoints(canvas), [canvas])
    (body,) = picture.bodies  # the second person has no body
    assert np.allclose(body.keypoints[:17, :2], np.array(POSE[:17]) * (800, 400))
    assert body.keypoints[:, 2].tolist() == [1] * 17 + [0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("people", "the drawing must be an object"),
        ({"people": "Anna"}, "must be a list"),
        ({"people": [{"name": "Anna"}]}, "the head of person 1 of the drawing"),
        ({"people": [{"head": [0, 0, 1]}]}, "4 finite numbers"),
        ({"people": [{"head": [0, 0, 1, float("inf")]}]}, "4 finite numbers"),
        ({"people": [{"head": [0, 0, 1, 1], "pose": POSE[:5]}]}, "18 points"),
        ({"people": [{"head": [0, 0, 1, 1], "pose": [[0, "a"]] * 18}]}, "point 1 of person 1"),
    ],
)
def test_a_malformed_drawing_is_refused(value, message):
    with pytest.raises(InvalidInputError, match=message):
        read_drawing(value)
