"""Measures of one picture: what must not change them does not, and what must does."""

import cv2
import numpy as np
import pytest
from fpga.fpga_core.dataset.attitude import attitude
from fpga.fpga_core.dataset.clarity import clarity
from fpga.fpga_core.dataset.framing import cut, face_crop, frame_face, moved
from fpga.fpga_core.dataset.hashing import HASH_BITS, perceptual_hash
from fpga.fpga_core.dataset.masks import hull_mask
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from hypothesis import given
from hypothesis import strategies as st


def textured(seed: int = 0, width: int = 320, height: int = 256) -> np.ndarray:
    """Rectangles of random colours: sharp edges on flat ground, as pictures have."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(24):
        x, y = rng.integers(0, width - 20), rng.integers(0, height - 20)
        picture[y : y + rng.integers(10, 90), x : x + rng.integers(10, 90)] = rng.integers(0, 256, 3)
    return picture


def distance(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.unpackbits(first ^ second).sum())


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def test_blur_lowers_clarity_step_by_step():
    picture = textured()
    values = [clarity(picture), *(clarity(blurred(picture, sigma)) for sigma in (1, 2, 4, 8))]
    assert values == sorted(values, reverse=True)
    assert values[0] > 100 * values[-1]


def test_clarity_does_not_depend_on_the_resolution_but_on_the_detail():
    picture = textured(width=1280, height=1024)
    smaller = cv2.resize(picture, (640, 512), interpolation=cv2.INTER_AREA)
    assert clarity(smaller) == pytest.approx(clarity(picture), rel=0.1)
    enlarged = cv2.resize(cv2.resize(picture, (80, 64), interpolation=cv2.INTER_AREA), (1280, 1024))
    assert clarity(enlarged) < clarity(picture) / 5


def test_a_sharp_face_before_a_blurred_background_is_sharp():
    picture = textured()
    background = blurred(picture, 8)
    background[64:128, 80:160] = picture[64:128, 80:160]
    assert clarity(background) > clarity(picture) / 3


def test_the_hash_outlives_scaling_compression_and_light():
    picture = textured()
    first = perceptual_hash(picture)
    scaled = cv2.resize(picture, None, fx=0.6, fy=0.7, interpolation=cv2.INTER_AREA)
    compressed = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
    brighter = np.clip(picture * 1.08 + 6, 0, 255).astype(np.uint8)
    assert all(distance(first, perceptual_hash(other)) <= 28 for other in (scaled, compressed, brighter))


def test_hashes_of_different_pictures_differ_in_many_bits():
    hashes = [perceptual_hash(textured(seed)) for seed in range(30)]
    apart = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 60
    assert all(100 <= int(np.unpackbits(h).sum()) <= HASH_BITS // 2 for h in hashes)


@given(
    st.tuples(st.integers(64, 900), st.integers(64, 900)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from([Extent(64, 64), Extent(64, 128), Extent(192, 64)]),
)
def test_the_window_holds_the_face_and_has_the_aspect(size, edges, target):
    picture = Extent(*size)
    (x0, x1), (y0, y1) = sorted(edges[:2]), sorted(edges[2:])
    face = Box(x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1])
    window = frame_face(picture, face, target)
    largest = min(picture.width / target.width, picture.height / target.height)
    if window is None:
        fits = face.width <= largest * target.width - 2 and face.height <= largest * target.height - 2
        assert not fits or face.area == 0
        return
    assert window.clipped(picture) == window
    assert window.x0 <= face.x0 and window.y0 <= face.y0 and window.x1 >= face.x1 - 1 and window.y1 >= face.y1 - 1
    assert abs(window.width - largest * target.width) < 1 and abs(window.height - largest * target.height) < 1


def test_points_move_with_the_pixels():
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[120:130, 200:210] = 255
    window, target = Box(100, 50, 300, 250), Extent(64, 64)
    white = np.argwhere(cut(picture, window, target)[..., 0] > 127)[:, ::-1].mean(axis=0) + 0.5
    (place,) = moved(np.array([[205.0, 125.0, 0.7]]), window, target)
    assert np.abs(white - place[:2]).max() < 0.6
    assert place[2] == 0.7


def test_a_face_crop_has_a_margin_and_is_not_large():
    crop = face_crop(textured(width=2000, height=1700), Box(600, 500, 1200, 1200))
    assert max(crop.shape) == 256
    assert crop.shape[1] / crop.shape[0] == pytest.approx(600 / 700, abs=0.01)
    assert face_crop(textured(), Box(0, 0, 40, 50)).shape == (80, 64, 3)  # no margin beyond the picture


def ellipse_face(width: float, height: float, x: float, y: float) -> np.ndarray:
    """Sixty-eight landmarks whose jaw is half an ellipse, with brows at its middle."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([x + width / 2 * np.cos(angles), y + height / 2 * np.sin(angles)], axis=1)
    brows = np.stack([np.linspace(x - width / 3, x + width / 3, 10), np.full(10, y - height / 4)], axis=1)
    rest = np.tile([[x, y]], (41, 1)) + np.linspace(-1, 1, 41)[:, None]
    points = np.concatenate([jaw, brows, rest])
    points[36:42] = [x - width / 4, y - height / 8]
    points[42:48] = [x + width / 4, y - height / 8]
    points[30] = [x, y + height / 10]
    return points


def test_the_hull_covers_the_face_and_nothing_far_from_it():
    points = ellipse_face(60, 80, 100, 90)
    mask = hull_mask(points, Extent(200, 180))
    assert set(np.unique(mask)) == {0, 255}
    inside = points.round().astype(int)
    assert (mask[inside[:, 1], inside[:, 0]] == 255).all()
    ys, xs = np.nonzero(mask)
    assert xs.min() >= 68 and xs.max() <= 132 and ys.max() <= 132
    assert ys.min() < 70, "the forehead"


@pytest.mark.parametrize("degrees", [-30, 0, 15])
@pytest.mark.parametrize("shift", [-10, 0, 12])
def test_attitude_measures_how_a_face_leans_and_turns(degrees, shift):
    points = ellipse_face(60, 80, 0, 0)
    points[30, 0] += shift
    angle = np.radians(degrees)
    turned = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + 100
    found = attitude(turned)
    assert found.roll == pytest.approx(degrees)
    assert found.turn == pytest.approx(shift / 15)


def test_the_attitude_of_a_point_is_no_number():
    assert np.isnan(attitude(np.zeros((68, 2)))).all()
