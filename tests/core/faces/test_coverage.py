"""Anti-aliased shapes, compared with the same shapes counted on an 8 times finer grid."""

import numpy as np
import pytest
from fpga.fpga_core.faces.coverage import ConvexPolygon, Disc, Ellipse, Shape, Stroke, coverage
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

EXTENT = Extent(48, 40)
FINE = 8


def counted(is_inside) -> np.ndarray:
    """Share of each pixel's 8x8 sub-pixels that are inside."""
    x = (np.arange(EXTENT.width * FINE)[None, :] + 0.5) / FINE
    y = (np.arange(EXTENT.height * FINE)[:, None] + 0.5) / FINE
    inside = is_inside(x, y).astype(float)
    return inside.reshape(EXTENT.height, FINE, EXTENT.width, FINE).mean(axis=(1, 3))


def drawn(shape: Shape) -> np.ndarray:
    picture = np.zeros((EXTENT.height, EXTENT.width))
    part, covered = coverage(shape, EXTENT)
    picture[part] = covered
    return picture


coordinates = st.tuples(st.floats(-8, 56), st.floats(-8, 48))


@settings(max_examples=20, deadline=None)
@given(center=coordinates, radius=st.floats(1, 15))
def test_disc(center, radius):
    exact = counted(lambda x, y: (x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2)
    assert np.abs(drawn(Disc(center, radius)) - exact).max() < 0.2


@settings(max_examples=20, deadline=None)
@given(start=coordinates, end=coordinates, half_width=st.floats(1, 6))
def test_stroke(start, end, half_width):
    def is_inside(x, y):
        step = np.subtract(end, start)
        along = (((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(step @ step, 1e-9)).clip(0, 1)
        return (x - start[0] - along * step[0]) ** 2 + (y - start[1] - along * step[1]) ** 2 <= half_width**2

    assert np.abs(drawn(Stroke(start, end, half_width)) - counted(is_inside)).max() < 0.2


@settings(max_examples=20, deadline=None)
@given(center=coordinates, half_axes=st.tuples(st.floats(3, 20), st.floats(3, 8)), angle=st.floats(-4, 4))
def test_ellipse(center, half_axes, angle):
    def is_inside(x, y):
        u = (x - center[0]) * np.cos(angle) + (y - center[1]) * np.sin(angle)
        v = (y - center[1]) * np.cos(angle) - (x - center[0]) * np.sin(angle)
        return (u / half_axes[0]) ** 2 + (v / half_axes[1]) ** 2 <= 1

    difference = np.abs(drawn(Ellipse(center, half_axes, angle)) - counted(is_inside))
    assert difference.max() < 0.35  # at the tips
    assert difference.sum() < 0.1 * 2 * np.pi * np.hypot(*half_axes)  # along the edge


@settings(max_examples=20, deadline=None)
@given(
    center=coordinates, radius=st.floats(5, 15), turn=st.floats(0, 6), num_corners=st.integers(3, 9), flip=st.booleans()
)
def test_convex_polygon(center, radius, turn, num_corners, flip):
    angle = turn + np.linspace(0, 2 * np.pi, num_corners, endpoint=False)
    corners = np.array(center) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    apothem = radius * np.cos(np.pi / num_corners)

    def is_inside(x, y):
        middles = angle + np.pi / num_corners
        return np.all([(x - center[0]) * np.cos(m) + (y - center[1]) * np.sin(m) <= apothem for m in middles], axis=0)

    difference = np.abs(drawn(ConvexPolygon(corners[::-1] if flip else corners)) - counted(is_inside))
    assert difference.max() < 0.5  # at sharp corners
    assert np.quantile(difference, 0.99) < 0.15
    repeated = ConvexPolygon(np.repeat(corners, 2, axis=0))
    assert np.allclose(drawn(repeated), drawn(ConvexPolygon(corners)))


@pytest.mark.parametrize("shape", [Disc((1e6, 5), 3), Stroke((-50, -50), (-20, 90), 3), Ellipse((5, -1e5), (9, 4))])
def test_shapes_outside_cover_nothing(shape):
    assert not drawn(shape).any()


def test_a_stroke_through_the_picture_from_far_outside():
    covered = drawn(Stroke((-1e6, 20.0), (1e6, 20.0), 2))
    assert (covered[18:22] == 1).all() and not covered[:17].any() and not covered[23:].any()
