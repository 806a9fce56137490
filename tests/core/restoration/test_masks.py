"""Face masks: the hull, its dilation and soft edge, and their limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.restoration.crops import CropSquare, face_square, lay_crop
from fpga.fpga_core.restoration.masks import (
    MAX_AREA,
    draw_hull,
    face_hull,
    found_mask,
    growth_within,
    hull_area,
    identity_region,
    polygon_area,
    soften_mask,
    widened,
)
from fpga.fpga_core.restoration.settings import CropSettings
from fpga.fpga_core.shapes import Extent
from scipy.spatial import ConvexHull


def circle(radius: float, size: int = 200, center: float = 100.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return (((x - center) ** 2 + (y - center) ** 2) <= radius**2).float()


def mesh_face(center=(50.0, 60.0), radii=(20.0, 28.0)) -> Face:
    generator = np.random.default_rng(3)
    turns = generator.uniform(0, 2 * math.pi, 468)
    points = np.stack([np.cos(turns), np.sin(turns)], -1) * generator.uniform(0, 1, (468, 1)) ** 0.5 * radii + center
    return Face(Box(center[0] - 20, center[1] - 28, center[0] + 20, center[1] + 28), landmarks=points)


def test_the_hull_of_many_landmarks_holds_them_all_and_is_convex():
    face = mesh_face()
    hull = face_hull(face)
    edges = np.roll(hull, -1, axis=0) - hull
    turn = edges[:, 0] * np.roll(edges, -1, axis=0)[:, 1] - edges[:, 1] * np.roll(edges, -1, axis=0)[:, 0]
    assert (turn >= -1e-4).all() or (turn <= 1e-4).all()
    offset = face.landmarks[:, None] - hull[None]
    side = (edges[:, 0] * offset[..., 1] - edges[:, 1] * offset[..., 0]) * np.sign(turn.sum())
    assert (side >= -1e-2).all()


@pytest.mark.parametrize("landmarks", [None, np.zeros((5, 2)), np.full((68, 2), np.nan), np.zeros((468, 2))])
def test_without_usable_landmarks_the_ellipse_in_the_box_stands_in(landmarks):
    hull = face_hull(Face(Box(10, 20, 50, 80), landmarks=landmarks))
    assert polygon_area(hull) == pytest.approx(math.pi * 20 * 30, rel=0.01)
    assert hull.min(0) == pytest.approx([10, 20]) and hull.max(0) == pytest.approx([50, 80])


def test_the_area_is_measured_by_the_landmarks_alone():
    """The forehead that the outline adds to 68 points is part of the mask, but not of the reference for its size."""
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(20, 80, (68, 2))
    face = Face(Box(20, 20, 80, 80), landmarks=landmarks)
    assert hull_area(face) == pytest.approx(ConvexHull(landmarks).volume, rel=1e-4)
    assert polygon_area(face_hull(face)) > hull_area(face)
    assert hull_area(Face(Box(10, 20, 50, 80))) == pytest.approx(math.pi * 20 * 30, rel=0.01)
    assert hull_area(Face(Box(10, 20, 50, 80), landmarks=np.zeros((68, 2)))) == pytest.approx(math.pi * 600, rel=0.01)


def test_a_drawn_hull_has_the_area_and_place_of_the_polygon():
    corners = np.array([[20.0, 30.0], [150.0, 40.0], [160.0, 170.0], [40.0, 120.0]])
    drawn = draw_hull(corners, 200)
    assert float(drawn.sum()) == pytest.approx(polygon_area(corners), rel=0.03)
    square = draw_hull(np.array([[10.0, 20.0], [30.0, 20.0], [30.0, 50.0], [10.0, 50.0]]), 64)
    rows, columns = square.nonzero().T
    assert abs(int(rows.min()) - 20) <= 1 and abs(int(columns.max()) - 29) <= 1


@pytest.mark.parametrize(("dilate", "feather"), [(0, 0), (6, 0), (0, 12), (5, 10), (2.4, 7.3)])
def test_soft_edges_are_full_inside_and_exactly_zero_beyond_their_width(dilate, feather):
    soft = soften_mask(circle(40), dilate_px=dilate, feather_px=feather)
    assert torch.equal(soft[circle(40 + dilate - 1.5) == 1], torch.ones(int(circle(40 + dilate - 1.5).sum())))
    assert float(soft[circle(40 + dilate + feather + 1.5) == 0].abs().max()) == 0.0
    profile = soft[100, 100:]
    assert (profile.diff() <= 1e-6).all()  # falls steadily
    if feather:
        falling = profile[round(40 + dilate) : round(40 + dilate + feather)]
        assert float(falling.mean()) == pytest.approx(0.5, abs=0.1)


def test_the_soft_edge_is_what_a_gaussian_makes_of_a_straight_edge():
    edge = torch.zeros(9, 400)
    edge[:, :200] = 1
    soft = soften_mask(edge, dilate_px=0, feather_px=80)[4].double()
    kernel = torch.exp(-0.5 * (torch.arange(-40, 41) / 20.0) ** 2).double()  # 80 px are four deviations
    blurred = torch.nn.functional.conv1d(edge[4].double()[None, None], (kernel / kernel.sum())[None, None], padding=40)
    torch.testing.assert_close(soft[150:360], blurred[0, 0, 110:320], atol=0.02, rtol=0)


def test_nothing_stays_nothing():
    assert not soften_mask(torch.zeros(50, 50), dilate_px=5, feather_px=5).any()
    assert growth_within(torch.zeros(50, 50), 100) == 0


@pytest.mark.parametrize("radius", [15, 30, 50])
def test_growth_is_steiners_formula(radius):
    mask = circle(radius)
    area = float(mask.sum())
    growth = growth_within(mask, MAX_AREA * area)
    assert growth == pytest.approx(radius * (MAX_AREA**0.5 - 1), rel=0.08)
    assert growth_within(mask, area) == 0


def landmarks_face(radii=(20.0, 28.0), center=(100.0, 100.0)) -> Face:
    turns = np.linspace(0, 2 * math.pi, 468, endpoint=False)
    points = np.stack([np.cos(turns), np.sin(turns)], -1) * radii + center
    return Face(Box(*points.min(0), *points.max(0)), landmarks=points)


def laid_mask(face: Face, size_px: int = 160, parser=None, **widths) -> torch.Tensor:
    """A face's mask where it is pasted into a picture of 200 px."""
    settings, extent = CropSettings(size_px=size_px, **widths), Extent(200, 200)
    square = face_square(face, extent, margin=settings.margin, is_upright=None, size_px=size_px)
    crop = torch.zeros(size_px, size_px, 3)
    mask = found_mask(crop, face, square, extent=extent, settings=settings, parser=parser)
    laid, _ = lay_crop(mask[..., None], square, extent, mode="bilinear")
    return laid[..., 0]


@pytest.mark.parametrize("radii", [(20.0, 28.0), (8.0, 40.0), (60.0, 60.0), (5.0, 7.0), (3.0, 4.0)])
@pytest.mark.parametrize("size_px", [64, 512])
def test_a_mask_of_the_default_widths_changes_at_most_the_limit(radii, size_px):
    face = landmarks_face(radii)
    changed = int((laid_mask(face, size_px) > 0).sum())
    assert 0.9 * hull_area(face) < changed <= MAX_AREA * hull_area(face)


def test_every_width_that_is_asked_for_changes_the_outline():
    """The limit binds at the default; smaller widths shrink as much, and larger ones are added to it."""
    face = landmarks_face()
    areas = [int((laid_mask(face, mask_grow=grow) > 0).sum()) for grow in (0.0, 0.04, 0.1, 0.2, 0.5)]
    assert all(later > earlier for earlier, later in itertools.pairwise(areas))
    feathered = [float(laid_mask(face, mask_feather=feather).sum()) for feather in (0.0, 0.08, 0.2)]
    assert all(later > earlier for earlier, later in itertools.pairwise(feathered))
    grown = math.pi * (20 + 0.46 * 56) * (28 + 0.46 * 56)
    assert areas[-1] == pytest.approx(grown + areas[1] - math.pi * 20 * 28, rel=0.25)


def test_a_parsers_mask_keeps_the_limit_too():
    face = landmarks_face()
    everything = laid_mask(face, parser=lambda crops: torch.ones(crops.shape[:3]))
    assert int((everything > 0).sum()) <= MAX_AREA * hull_area(face)


def test_a_mask_can_shrink():
    shrunk = soften_mask(circle(40), dilate_px=-10, feather_px=0)
    assert float((shrunk - circle(30)).abs().sum()) < 2 * math.pi * 30


def test_the_identity_acts_in_the_face_scaled_about_its_centre():
    face, square = landmarks_face(), CropSquare((100.0, 100.0), 120.0, 0.0, 240)
    own, head = (identity_region(face, square, factor) for factor in (1.0, 1.45))
    assert float(head.sum() / own.sum()) == pytest.approx(1.45**2, rel=0.02)
    for axis in (0, 1):
        cells = [region.any(axis).nonzero() for region in (own, head)]
        assert float(cells[0].float().mean()) == pytest.approx(float(cells[1].float().mean()), abs=1)
    boxed = identity_region(Face(Box(80, 72, 120, 128)), square, 1.45)
    assert float((boxed - head).abs().mean()) < 0.01


@pytest.mark.parametrize("shape", [(20, 40), (30, 10), (1, 1)])
def test_a_given_mask_is_widened_so_that_its_extent_grows_by_the_factor(shape):
    mask = torch.zeros(128, 128)
    mask[40 : 40 + shape[0], 50 : 50 + shape[1]] = 1
    wide = widened(mask, 1.5)
    longer = max(int(wide.any(axis).sum()) for axis in (0, 1))
    assert abs(longer - 1.5 * max(shape)) <= 2 and bool((wide >= mask).all())
    assert torch.equal(widened(mask, 1.0), mask) and not widened(torch.zeros(9, 9), 2.0).any()
