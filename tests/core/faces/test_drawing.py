"""Condition images: OpenPose's and InstantID's published colours, places and sizes."""

import colorsys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from fpga.fpga_core.faces.face import Body, Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

# OpenPose's drawing as published: limbs between 1-based keypoints, the i-th in the i-th of 18 hues, 20 degrees apart.
OPENPOSE_LIMBS = [
    (2, 3),
    (2, 6),
    (3, 4),
    (4, 5),
    (6, 7),
    (7, 8),
    (2, 9),
    (9, 10),
    (10, 11),
    (2, 12),
    (12, 13),
    (13, 14),
    (2, 1),
    (1, 15),
    (15, 17),
    (1, 16),
    (16, 18),
]
HUES = np.array([colorsys.hsv_to_rgb(i / 18, 1, 1) for i in range(18)])

STANDING = np.array(
    [
        [256, 100],
        [256, 170],
        [190, 175],
        [150, 260],
        [120, 350],
        [322, 175],
        [365, 265],
        [395, 345],
        [222, 340],
        [210, 420],
        [200, 495],
        [290, 340],
        [305, 425],
        [315, 495],
        [230, 75],
        [282, 75],
        [195, 90],
        [317, 90],
    ],
    dtype=np.float32,
)


def body(points: np.ndarray = STANDING, confidence: float = 1.0) -> Body:
    return Body(np.concatenate([points, np.full((18, 1), confidence)], axis=1).astype(np.float32))


def face(landmarks: np.ndarray) -> Face:
    return Face(Box(0, 0, 10, 10), 1.0, np.asarray(landmarks, np.float32))


def one_dot(x: float, y: float) -> Face:
    """A face with only the nose visible."""
    landmarks = np.full((5, 2), np.nan)
    landmarks[2] = x, y
    return face(landmarks)


SQUARE = Extent(512, 512)


def picture(*faces: Face, bodies=(), extent=SQUARE) -> PictureFaces:
    return PictureFaces(extent, faces, tuple(bodies))


def pixel(image: torch.Tensor, point) -> np.ndarray:
    """Returns the pixel that contains a point in continuous coordinates."""
    return image[int(point[1]), int(point[0])].numpy()


def draw(*pictures: PictureFaces, parts=DrawnParts.FACE, style=FaceStyle.OPENPOSE, **options) -> torch.Tensor:
    return draw_conditions(pictures, parts, style, **options)


def test_body_has_openpose_colours_with_limbs_at_three_fifths():
    (image,) = draw(picture(bodies=[body()]), parts=DrawnParts.BODY)
    for keypoint, color in zip(STANDING, HUES, strict=True):
        assert np.abs(pixel(image, keypoint) - color).max() <= 0.01
    for (start, end), color in zip(OPENPOSE_LIMBS, HUES, strict=False):
        middle = (STANDING[start - 1] + STANDING[end - 1]) / 2
        assert np.abs(pixel(image, middle) - 0.6 * color).max() <= 0.01


def published_body(points: np.ndarray, size: int = 512) -> np.ndarray:
    """The drawing of ControlNet's annotator, written from its description: cv2 polygons of ellipses, then circles."""
    canvas = np.zeros((size, size, 3), np.uint8)
    for (start, end), color in zip(OPENPOSE_LIMBS, HUES, strict=False):
        a, b = points[start - 1], points[end - 1]
        center, step = (a + b) / 2, a - b
        angle = int(np.degrees(np.arctan2(step[1], step[0])))
        axes = (int(np.hypot(*step) / 2), 4)
        polygon = cv2.ellipse2Poly((int(center[0]), int(center[1])), axes, angle, 0, 360, 1)
        cv2.fillConvexPoly(canvas, polygon, (color * 255 * 0.6).tolist())
    for point, color in zip(points, HUES, strict=True):
        cv2.circle(canvas, (int(point[0]), int(point[1])), 4, (color * 255).tolist(), thickness=-1)
    return canvas / 255


def test_body_is_the_published_drawing_but_for_the_edges():
    (image,) = draw(picture(bodies=[body(STANDING + 0.5)]), parts=DrawnParts.BODY)
    published = published_body(STANDING)
    neighbours = [np.roll(published, shift, axis) for shift in (-1, 1) for axis in (0, 1)]
    is_inner = np.all([(neighbour == published).all(-1) for neighbour in neighbours], axis=0) & (published > 0).any(-1)
    agrees = np.abs(image.numpy() - published).max(-1) < 0.02
    assert is_inner.sum() > 5000
    assert agrees[is_inner].mean() > 0.97
    ours, theirs = image.numpy().max(-1).sum(), published.max(-1).sum()
    assert ours == pytest.approx(theirs, rel=0.03)  # as much light, so the widths agree


def test_face_dots_have_the_published_size():
    (dot,) = draw(picture(one_dot(256.5, 256.5)))
    published = np.zeros((512, 512), np.uint8)
    cv2.circle(published, (256, 256), 3, 255, thickness=-1)
    assert dot.mean(-1).sum().item() == pytest.approx(np.pi * 3**2, rel=0.01)
    assert dot.mean(-1).sum().item() == pytest.approx((published > 0).sum(), rel=0.05)


def test_line_width_follows_the_shorter_side_and_its_setting():
    one = picture(one_dot(256.0, 256.0))
    area = {
        (width, line_width): draw(one, width=width, height=max(width, 512), line_width=line_width).mean(-1).sum().item()
        for width, line_width in ((512, 1.0), (1024, 1.0), (512, 2.0), (256, 1.0))
    }
    assert area[1024, 1.0] == pytest.approx(4 * area[512, 1.0], rel=0.01)
    assert area[512, 2.0] == pytest.approx(4 * area[512, 1.0], rel=0.01)
    assert area[256, 1.0] == pytest.approx(area[512, 1.0] / 4, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(20, 80), y=st.floats(20, 60))
def test_dots_are_placed_to_a_fraction_of_a_pixel(x, y):
    (image,) = draw(picture(one_dot(x, y), extent=Extent(101, 83)), line_width=6)
    weight = image.mean(-1).double().numpy()
    columns, rows = np.arange(101) + 0.5, np.arange(83) + 0.5
    center = (weight.sum(0) @ columns / weight.sum(), weight.sum(1) @ rows / weight.sum())
    assert center == pytest.approx((x, y), abs=0.03)


@pytest.mark.parametrize("style", FaceStyle)
def test_drawing_larger_is_drawing_a_larger_picture(style):
    """The drawing depends on the places of the points in the result, not on the size of the source."""
    rng = np.random.default_rng(0)
    points = rng.uniform(40, 200, (68, 2)).astype(np.float32)
    small = picture(face(points), bodies=[body(STANDING / 2)], extent=Extent(257, 301))
    large = picture(face(points * 2), bodies=[body(STANDING)], extent=Extent(514, 602))
    parts = DrawnParts.FACE_AND_BODY
    assert torch.equal(draw(small, parts=parts, style=style, width=514), draw(large, parts=parts, style=style))


def test_sizes_left_at_zero_follow_the_picture():
    one = picture(face(np.full((5, 2), 20.0)), extent=Extent(640, 427))
    assert draw(one).shape == (1, 427, 640, 3)
    assert draw(one, width=320).shape == (1, 214, 320, 3)
    assert draw(one, height=854).shape == (1, 854, 1280, 3)
    assert draw(one, width=333, height=111).shape == (1, 111, 333, 3)
    assert draw(one, width=1).shape == (1, 1, 1, 3)


def test_instantid_colours_dots_and_spokes():
    points = np.array([[200, 200], [320, 205], [262, 270], [215, 330], [310, 332]], np.float32)
    (image,) = draw(picture(face(points)), style=FaceStyle.INSTANTID)
    colors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]])
    for point, color in zip(points, colors, strict=True):
        assert np.abs(pixel(image, point) - color).max() <= 0.01
    for index in (0, 1, 3, 4):
        middle = (points[index] + points[2]) / 2
        assert np.abs(pixel(image, middle) - 0.6 * colors[index]).max() <= 0.03


def test_instantid_draws_the_detectors_points_beside_denser_landmarks():
    """As it was trained; in the other styles, the denser landmarks are drawn."""
    points = np.array([[200, 200], [320, 205], [262, 270], [215, 330], [310, 332]], np.float32)
    dense = np.random.default_rng(1).uniform(100, 400, (68, 2))
    both = replace(face(dense), keypoints=points)
    for style, drawn in ((FaceStyle.INSTANTID, points), (FaceStyle.OPENPOSE, dense), (FaceStyle.CURVES, dense)):
        assert torch.equal(draw(picture(both), style=style), draw(picture(face(drawn)), style=style))


def test_every_style_draws_every_layout():
    rng = np.random.default_rng(1)
    for count in (5, 68, 106, 468, 478):
        one = picture(face(rng.uniform(100, 400, (count, 2))))
        for style in FaceStyle:
            image = draw(one, style=style)
            assert (image > 0).any()
            assert image.min() >= 0 and image.max() <= 1


def test_unseen_points_are_left_out_and_the_rest_is_drawn():
    """68 points on a circle, so that no line between two passes a third; exactly those that are not NaN are there."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    circle = 256.5 + 200 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    landmarks = circle.copy()
    unseen = [0, 16, 38, 67]
    landmarks[unseen] = np.nan
    for style in (FaceStyle.OPENPOSE, FaceStyle.CURVES):
        (image,) = draw(picture(face(landmarks)), style=style)
        lit = [pixel(image, point).max() > 0.5 for point in circle]
        assert [index for index in range(68) if not lit[index]] == unseen


def test_keypoints_below_the_confidence_are_left_out():
    keypoints = body().keypoints.copy()
    keypoints[4, 2] = 0.2
    one = picture(bodies=[Body(keypoints)])
    (image,) = draw(one, parts=DrawnParts.BODY)
    assert pixel(image, STANDING[4]).max() == 0  # wrist
    assert pixel(image, (STANDING[3] + STANDING[4]) / 2).max() == 0  # forearm
    (image,) = draw(one, parts=DrawnParts.BODY, min_confidence=0.1)
    assert pixel(image, STANDING[4]).max() == pytest.approx(1, abs=0.01)
    absent = Body(np.zeros((18, 3), np.float32))
    assert not draw(picture(bodies=[absent]), parts=DrawnParts.BODY, min_confidence=0.0).any()


def test_face_and_body_are_the_union_of_both():
    one = picture(face(np.random.default_rng(2).uniform(200, 300, (68, 2))), bodies=[body()])
    face_only, body_only, both = (
        draw(one, parts=parts) for parts in (DrawnParts.FACE, DrawnParts.BODY, DrawnParts.FACE_AND_BODY)
    )
    is_face = face_only.amax(-1) == 1
    assert torch.equal(both[is_face], face_only[is_face])
    is_free = face_only.amax(-1) == 0
    assert torch.equal(both[is_free], body_only[is_free])


def test_a_batch_is_drawn_picture_by_picture():
    first, second = picture(face(np.full((5, 2), 100.0))), picture(face(np.full((5, 2), 400.0)))
    nobody = picture()
    batch = draw(first, nobody, second)
    assert batch.shape == (3, 512, 512, 3)
    assert batch.dtype == torch.float32
    assert torch.equal(batch[0], draw(first)[0]) and torch.equal(batch[2], draw(second)[0])
    assert not batch[1].any()


@settings(max_examples=25, deadline=None)
@given(
    points=st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=68, max_size=68),
    style=st.sampled_from(list(FaceStyle)),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
def test_points_anywhere_draw_without_harm(points, style, width, height):
    one = picture(face(points), bodies=[body(np.array(points[:18]))], extent=Extent(31, 17))
    image = draw(one, parts=DrawnParts.FACE_AND_BODY, style=style, width=width, height=height)
    assert image.shape == (1, height, width, 3)


def test_a_face_cut_by_the_border_is_drawn_as_far_as_it_is_inside():
    """The same face in a larger picture, cropped, is the same drawing (at the same line width in pixels)."""
    points = np.random.default_rng(3).uniform(-60, 60, (68, 2)).astype(np.float32)
    cut = draw(picture(face(points), extent=Extent(100, 100)), style=FaceStyle.CURVES)
    whole = draw(picture(face(points + 100), extent=Extent(300, 300)), style=FaceStyle.CURVES, line_width=1 / 3)
    assert (cut[0] - whole[0, 100:200, 100:200]).abs().max() <= 0.02


def test_errors_name_the_face_and_say_what_to_do():
    box_only = Face(Box(0, 0, 10, 10))
    with pytest.raises(InvalidInputError, match="face 2 of picture 1 has a box but no landmarks"):
        draw(picture(face(np.zeros((5, 2))), box_only))
    with pytest.raises(InvalidInputError, match="connect a pose to `skeleton`"):
        draw(picture(face(np.zeros((5, 2)))), parts=DrawnParts.FACE_AND_BODY)
    with pytest.raises(InvalidInputError, match="512x512, 64x64"):
        draw(picture(), picture(extent=Extent(64, 64)))
    with pytest.raises(InvalidInputError, match="empty batch"):
        draw()
    assert not draw(picture(), parts=DrawnParts.BODY).any()  # nobody there: black, not an error
