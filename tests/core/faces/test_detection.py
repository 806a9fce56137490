"""The faces that a detection returns, their order, and their form."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.detection import as_pictures, detect_faces
from fpga.fpga_core.faces.face import Face, FaceAnalyzer, PictureFaces
from fpga.fpga_core.faces.ordering import FaceOrder, select_faces
from fpga.fpga_core.faces.preview import bounding_boxes, draw_numbers, face_masks
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass
class Scripted:
    """A FaceAnalyzer that finds what it is told to, and records what it is shown."""

    faces: list
    description: str = "scripted"
    recogniser: str | None = None

    def find_faces(self, pictures):
        self.seen = pictures
        return self.faces


def box_face(x0, y0, x1, y1, score=1.0) -> Face:
    return Face(Box(x0, y0, x1, y1), score)


boxes = st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(1, 50), st.floats(1, 50)).map(
    lambda b: box_face(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=30, deadline=None)
@given(faces=st.lists(boxes, max_size=8), order=st.sampled_from(list(FaceOrder)), least=st.floats(0, 50))
def test_ordering_keeps_each_large_enough_face_once_and_sorts(faces, order, least):
    kept = select_faces(faces, order, least)
    assert {id(face) for face in kept} == {
        id(face) for face in faces if max(face.box.x1 - face.box.x0, face.box.y1 - face.box.y0) >= least
    }
    assert len(kept) == len({id(face) for face in kept})
    areas = [(f.box.x1 - f.box.x0) * (f.box.y1 - f.box.y0) for f in kept]
    centers = [f.box.x0 + f.box.x1 for f in kept]
    places = [faces.index(f) for f in kept]
    expected = {
        FaceOrder.LARGEST_FIRST: [-a for a in areas],
        FaceOrder.LEFT_TO_RIGHT: centers,
        FaceOrder.DETECTOR: places,
    }
    assert expected[order] == sorted(expected[order])


def test_ties_keep_the_order_of_the_detector():
    faces = [box_face(10, 0, 20, 10, score) for score in (0.1, 0.2, 0.3)]
    for order in FaceOrder:
        assert select_faces(faces, order) == tuple(faces)


def test_the_analyser_sees_the_whole_batch_once_as_rgb_bytes():
    image = torch.rand(3, 5, 7, 4)
    analyser = Scripted([(), (box_face(1, 1, 3, 4),), ()])
    assert isinstance(analyser, FaceAnalyzer)
    found = detect_faces(as_pictures(image), analyser)
    assert [len(picture.faces) for picture in found] == [0, 1, 0]
    assert {picture.extent for picture in found} == {Extent(7, 5)}
    assert [picture.shape for picture in analyser.seen] == [(5, 7, 3)] * 3
    assert np.abs(np.stack(analyser.seen) / 255 - image[..., :3].numpy()).max() <= 0.5 / 255 + 1e-6


def test_images_of_any_range_and_channels_become_pictures():
    wild = torch.tensor([-1.0, 0.0, 0.5, 1.0, 7.0, float("nan"), float("inf")]).reshape(1, 1, 7, 1)
    (picture,) = as_pictures(wild)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255]
    assert (picture[..., 0] == picture[..., 2]).all()
    assert as_pictures(torch.rand(2, 3, 4, 3).half())[0].shape == (3, 4, 3)
    for bad in (torch.zeros(4, 4, 3), torch.zeros(1, 4, 4, 2), torch.zeros(0, 4, 4, 3)):
        with pytest.raises(InvalidInputError, match=r"expected images"):
            as_pictures(bad)


def test_faces_outside_the_picture_do_not_count():
    outside, cut = box_face(100, 0, 140, 30), box_face(-20, -20, 10, 10)
    (found,) = detect_faces([np.zeros((50, 100, 3), np.uint8)], Scripted([(outside, cut)]))
    assert found.faces == (cut,)
    assert bounding_boxes([found]) == [[{"x": 0, "y": 0, "width": 10, "height": 10, "label": "face", "score": 1.0}]]


def test_exactly_one_source():
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(InvalidInputError, match="none is connected"):
        detect_faces(pictures)
    with pytest.raises(InvalidInputError, match="face_analysis and pose_keypoints are connected"):
        detect_faces(pictures, Scripted([()]), pose_keypoints=[])
    nobody = {"frames": [[]], "image_size": (8, 8)}
    assert detect_faces(pictures, face_landmarks=nobody) == (PictureFaces(Extent(8, 8)),)


def test_boxes_are_whole_pixels_that_hold_the_face():
    picture = PictureFaces(Extent(40, 30), (box_face(3.2, 4.8, 10.1, 12.0, 0.5),))
    assert bounding_boxes([picture, PictureFaces(Extent(40, 30))]) == [
        [{"x": 3, "y": 4, "width": 8, "height": 8, "label": "face", "score": 0.5}],
        [],
    ]


def test_masks_come_one_per_face_of_the_batch_and_one_empty_without():
    extent = Extent(60, 40)
    found = [
        PictureFaces(extent, (box_face(10, 10, 30, 30), box_face(30, 5, 50, 35))),
        PictureFaces(extent),
        PictureFaces(extent, (box_face(-10, -10, 20, 20),)),
    ]
    masks = face_masks(found)
    assert masks.shape == (3, 40, 60)
    for mask, (half_x, half_y) in zip(masks[:2], ((10, 10), (10, 15)), strict=True):
        assert mask.sum().item() == pytest.approx(np.pi * half_x * half_y, rel=0.005)  # an ellipse in the box
    assert masks[0, 20, 20] == 1 and masks[0, 11, 11] == 0 and masks[2, 0, 0] == 1
    empty = face_masks([PictureFaces(extent)])
    assert empty.shape == (1, 40, 60) and not empty.any()


def test_a_mask_of_landmarks_fills_their_outline():
    """A mesh on a circle: the mask is the disc, and has its area."""
    angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    points = np.stack([50 + 30 * np.cos(angle), 50 + 30 * np.sin(angle)], axis=1).astype(np.float32)
    (mask,) = face_masks([PictureFaces(Extent(100, 100), (Face(Box(0, 0, 9, 9), 1.0, points),))])
    rows, columns = np.mgrid[0:100, 0:100] + 0.5
    distance = np.hypot(columns - 50, rows - 50)
    assert (mask.numpy()[distance < 29] == 1).all() and (mask.numpy()[distance > 31] == 0).all()
    assert mask.sum().item() == pytest.approx(np.pi * 30**2, rel=0.005)


def test_previews_number_each_face_and_leave_the_rest_alone():
    picture = np.full((120, 200, 3), 90, np.uint8)
    found = PictureFaces(Extent(200, 120), (box_face(20, 20, 80, 100), box_face(120, 30, 170, 90)))
    preview, untouched = draw_numbers([picture, picture], [found, PictureFaces(Extent(200, 120))])
    assert (untouched * 255).round().unique().tolist() == [90]
    changed = ((preview * 255).round() != 90).any(-1)
    assert changed[20, 50] and changed[99:102, 50].any() and not changed[60, 50]
    assert not changed[:, 90:110].any() and not changed[:10].any()
    one_face = PictureFaces(found.extent, found.faces[:1])
    swapped = PictureFaces(found.extent, found.faces[::-1])
    assert not torch.equal(draw_numbers([picture], [swapped])[0], preview)  # the numbers differ
    assert torch.equal(draw_numbers([picture], [one_face])[0][:, :100], preview[:, :100])


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 64),
    height=st.integers(1, 64),
    corner=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    size=st.tuples(st.floats(0.1, 200), st.floats(0.1, 200)),
)
def test_faces_anywhere_are_previewed_masked_and_boxed(width, height, corner, size):
    face = box_face(*corner, corner[0] + size[0], corner[1] + size[1])
    picture = np.zeros((height, width, 3), np.uint8)
    found = detect_faces([picture], Scripted([(face,)]))
    assert draw_numbers([picture], found).shape == (1, height, width, 3)
    assert face_masks(found).shape == (1, height, width)
    for box in bounding_boxes(found)[0]:
        assert 0 <= box["x"] < box["x"] + box["width"] <= width
        assert 0 <= box["y"] < box["y"] + box["height"] <= height
