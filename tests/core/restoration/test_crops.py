"""Crop geometry against known pictures: gradients whose value at a point is known, tilted faces, borders, tiny ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.restoration.crops import MAX_TILT, CropSquare, face_square, lay_crop, take_crop, tilt_of
from fpga.fpga_core.shapes import Extent
from hypothesis import given
from hypothesis import strategies as st


def gradient(width: int, height: int) -> torch.Tensor:
    """Channel 0 is x and channel 1 is y of the pixel's centre, as fractions of the picture."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y, x * y], dim=-1)


def tilted_face(angle: float, center=(100.0, 80.0), size: float = 30.0) -> Face:
    eyes = np.array([[-6.0, -4.0], [6.0, -4.0], [0.0, 0.0], [-4.0, 6.0], [4.0, 6.0]])
    c, s = math.cos(angle), math.sin(angle)
    points = eyes @ np.array([[c, s], [-s, c]]) + center
    x, y = center
    return Face(Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2), landmarks=points)


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, math.pi / 2])
@pytest.mark.parametrize("size_px", [32, 200])
def test_a_crop_shows_the_picture_where_the_geometry_says(angle, size_px):
    """Any interpolation reproduces a linear gradient, so each crop pixel tells where it came from."""
    square = CropSquare((100.0, 80.0), 60.0, angle, size_px)
    crop = take_crop(gradient(200, 160), square)
    columns, rows = np.meshgrid(np.arange(size_px) + 0.5, np.arange(size_px) + 0.5)
    expected = square.to_picture(np.stack([columns, rows], -1).reshape(-1, 2)) / (200, 160)
    np.testing.assert_allclose(crop[..., :2].reshape(-1, 2).numpy(), expected, atol=2e-3)


def test_crop_and_picture_coordinates_are_inverse():
    square = CropSquare((31.5, 12.0), 17.0, 0.7, 64)
    points = np.random.default_rng(0).uniform(-20, 90, (50, 2))
    np.testing.assert_allclose(square.to_picture(square.to_crop(points)), points, atol=1e-9)
    np.testing.assert_allclose(square.to_crop(np.array([[31.5, 12.0]])), [[32, 32]])


@pytest.mark.parametrize("angle", [0.5, -0.9, math.radians(170)])
def test_an_upright_crop_levels_the_eyes_left_eye_left(angle):
    face = tilted_face(angle)
    square = face_square(face, Extent(200, 160), margin=0.5, is_upright=True, size_px=128)
    left_eye, right_eye = square.to_crop(face.landmarks)[:2]
    assert left_eye[1] == pytest.approx(right_eye[1]) and left_eye[0] < right_eye[0]
    assert face_square(face, Extent(200, 160), margin=0.5, is_upright=False, size_px=128).angle == 0


def test_a_face_without_landmarks_or_with_unseen_eyes_is_not_turned():
    face = tilted_face(0.5)
    unseen = Face(face.box, landmarks=np.full((5, 2), np.nan))
    for other in (Face(face.box), unseen):
        assert face_square(other, Extent(200, 160), margin=0.5, is_upright=True, size_px=128).angle == 0


def test_laying_an_untouched_crop_back_restores_the_picture():
    picture = torch.rand(60, 80, 3, generator=torch.Generator().manual_seed(0))
    square = CropSquare((40.0, 30.0), 32.0, 0.0, 32)
    laid, box = lay_crop(take_crop(picture, square), square, Extent(80, 60))
    assert box == Box(24, 14, 56, 46)
    torch.testing.assert_close(laid, picture[14:46, 24:56], atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_an_enlarged_crop_laid_back_is_close_on_smooth_pictures(angle):
    picture = gradient(200, 160) * 0.8 + 0.1
    square = CropSquare((100.0, 80.0), 40.0, angle, 256)
    laid, box = lay_crop(take_crop(picture, square), square, Extent(200, 160))
    inside = lay_crop(torch.ones(256, 256, 1), square, Extent(200, 160), mode="bilinear")[0][..., 0] > 0.999
    original = picture[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    assert inside.float().sum() > 0.85 * 40 * 40
    assert float((laid - original)[inside].abs().max()) < 2e-3


def test_reducing_averages_instead_of_skipping_pixels():
    """A fine checkerboard seen from afar is grey; sampling every n-th pixel would show black or white."""
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    crop = take_crop(board[..., None].float().expand(-1, -1, 3), CropSquare((128.0, 128.0), 240.0, 0.0, 24))
    assert float((crop - 0.5).abs().max()) < 0.02
    laid, _ = lay_crop(
        board[..., None].float(), CropSquare((50.0, 50.0), 16.0, 0.0, 256), Extent(100, 100), mode="bilinear"
    )
    assert float((laid[2:-2, 2:-2] - 0.5).abs().max()) < 0.02


@pytest.mark.parametrize(("x", "y"), [(5, 5), (195, 5), (100, 158), (0, 80)])
def test_a_square_at_the_border_is_moved_inside(x, y):
    face = Face(Box(x - 10, y - 10, x + 10, y + 10))
    square = face_square(face, Extent(200, 160), margin=0.5, is_upright=False, size_px=64)
    assert square.side_px == 40
    assert square.bounds(Extent(200, 160)).area == 40 * 40


def test_beyond_a_picture_that_is_too_small_the_border_repeats():
    picture = torch.zeros(6, 10, 3)
    picture[:, 0] = 1.0
    square = face_square(Face(Box(0, 0, 10, 6)), Extent(10, 6), margin=1.0, is_upright=False, size_px=30)
    crop = take_crop(picture, square)
    assert square.side_px == 30
    torch.testing.assert_close(crop[:, :9], torch.ones(30, 9, 3))
    torch.testing.assert_close(crop[:, 13:], torch.zeros(30, 17, 3))


def test_a_picture_of_one_pixel():
    picture = torch.full((1, 1, 3), 0.25)
    square = face_square(Face(Box(0, 0, 1, 1)), Extent(1, 1), margin=0.5, is_upright=True, size_px=16)
    crop = take_crop(picture, square)
    assert torch.equal(crop, torch.full((16, 16, 3), 0.25))
    laid, box = lay_crop(crop, square, Extent(1, 1))
    assert box == Box(0, 0, 1, 1) and laid.shape == (1, 1, 3)


def test_pixels_that_are_not_finite_count_as_black():
    picture = torch.full((20, 20, 3), float("nan"))
    picture[:, 10:] = float("inf")
    assert torch.equal(take_crop(picture, CropSquare((10.0, 10.0), 10.0, 0.3, 8)), torch.zeros(8, 8, 3))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    x=st.floats(-0.2, 1.2),
    y=st.floats(-0.2, 1.2),
    size=st.floats(0.5, 80),
    angle=st.floats(-4, 4),
    margin=st.floats(0, 2),
    is_upright=st.booleans(),
)
def test_any_face_gives_a_finite_crop_inside_the_picture(width, height, x, y, size, angle, margin, is_upright):
    extent = Extent(width, height)
    face = tilted_face(angle, (x * width, y * height), size)
    square = face_square(face, extent, margin=margin, is_upright=is_upright, size_px=24)
    box = square.bounds(extent)
    assert box.area >= 1
    crop = take_crop(gradient(width, height), square)
    laid, laid_box = lay_crop(crop, square, extent)
    assert laid_box == box and laid.shape == (int(box.height), int(box.width), 3)
    assert torch.isfinite(laid).all() and float(laid.min()) >= 0 and float(laid.max()) <= 1


@pytest.mark.parametrize(
    ("tilt", "turn"), [(0, 0), (24, 0), (-26, -26), (60, 60), (80, 90), (125, 125), (-170, -180), (180, 180)]
)
def test_faces_are_turned_by_quarters_and_beyond_that_only_if_they_are_tilted_far(tilt, turn):
    face = tilted_face(math.radians(tilt))
    square = face_square(face, Extent(200, 160), margin=0.5, is_upright=None, size_px=128)
    assert math.degrees(square.angle) == pytest.approx(turn)
    assert abs(tilt_of(square.face_in_crop(face))) <= MAX_TILT + 1e-9


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize(
    ("tilt", "x", "y", "size"), [(0.0, 60.0, 50.0, 30.0), (0.2, 61.5, 40.5, 31.0), (0.7, 9.3, 70.0, 25.0)]
)
def test_a_turned_picture_gives_the_same_crop(quarters, tilt, x, y, size):
    """Of a face upside down, or on its side, exactly what an upright one gives."""
    picture = torch.rand(90, 120, 3, generator=torch.Generator().manual_seed(0))
    face = tilted_face(tilt, (x, y), size)
    upright = face_square(face, Extent(120, 90), margin=0.38, is_upright=None, size_px=96)
    turned_picture = torch.rot90(picture, -quarters).contiguous()  # clockwise
    width, height = turned_picture.shape[1], turned_picture.shape[0]

    def turned(points):
        for _ in range(quarters):
            points = np.stack([-points[:, 1], points[:, 0]], -1)
        offset = {1: (90, 0), 2: (120, 90), 3: (0, 120)}[quarters]
        return points + offset

    corners = turned(np.array([[face.box.x0, face.box.y0], [face.box.x1, face.box.y1]]))
    other = Face(Box(*corners.min(0), *corners.max(0)), landmarks=turned(face.landmarks))
    square = face_square(other, Extent(width, height), margin=0.38, is_upright=None, size_px=96)
    torch.testing.assert_close(take_crop(turned_picture, square), take_crop(picture, upright), atol=1e-4, rtol=0)


def test_a_face_in_its_crop_keeps_its_detectors_points():
    """Recognisers align by them, and InstantID's condition image is drawn from them."""
    face = tilted_face(0.4)
    face = replace(face, keypoints=face.landmarks + 1)
    square = face_square(face, Extent(200, 160), margin=0.3, is_upright=False, size_px=64)
    moved = square.face_in_crop(face)
    np.testing.assert_allclose(moved.keypoints, square.to_crop(face.keypoints))
    assert np.abs(moved.keypoints - face.keypoints).max() > 1
