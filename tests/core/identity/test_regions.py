import math

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.regions import WHOLE_PICTURE, Region, share_overlap
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

SUBCELLS = 8  # per cell and axis, in the supersampled references

fuzz = settings(deadline=None)
quick = settings(deadline=None, max_examples=30)

extents = st.builds(Extent, st.integers(1, 9), st.integers(1, 9))
fractions = st.floats(-0.3, 1.3)
boxes = st.tuples(fractions, fractions, fractions, fractions).map(
    lambda c: Box(min(c[0], c[1]), min(c[2], c[3]), max(c[0], c[1]), max(c[2], c[3]))
)


def block_means(fine: np.ndarray, extent: Extent) -> np.ndarray:
    rows, columns = fine.shape
    return fine.reshape(extent.height, rows // extent.height, extent.width, columns // extent.width).mean((1, 3))


@st.composite
def bars(draw, num_cells: int):
    """A bar on the grid of subcells, and a feather that ends on that grid: start, end and soft width in subcells."""
    start = draw(st.integers(-SUBCELLS, num_cells * SUBCELLS - 1))
    end = draw(st.integers(max(start, 0) + 1, (num_cells + 1) * SUBCELLS))
    return start, end


def supersampled_bar(start: int, end: int, soft: float, num_cells: int) -> np.ndarray:
    """The weight at the middle of each subcell, from the distance to the nearer soft side."""
    middle = np.arange(num_cells * SUBCELLS) + 0.5
    depth = np.full(len(middle), np.inf)
    if start > 0:
        depth = np.minimum(depth, middle - start)
    if end < num_cells * SUBCELLS:
        depth = np.minimum(depth, end - middle)
    weight = (depth / soft).clip(0, 1) if soft else (depth > 0).astype(float)
    return np.where((middle > start) & (middle < end), weight, 0.0)


@fuzz
@given(st.data())
def test_a_box_covers_each_cell_by_its_share_of_the_supersampled_raster(data):
    extent = data.draw(extents)
    (x0, x1), (y0, y1) = data.draw(bars(extent.width)), data.draw(bars(extent.height))
    feather = data.draw(st.sampled_from([0.0, 0.125, 0.25, 0.5]))
    # Sides of 8 subcells and their multiples, so that the soft edges end on the grid and midpoint sums are exact.
    x1, y1 = x0 + 8 * math.ceil((x1 - x0) / 8), y0 + 8 * math.ceil((y1 - y0) / 8)
    across = supersampled_bar(x0, x1, feather * (x1 - x0), extent.width)
    down = supersampled_bar(y0, y1, feather * (y1 - y0), extent.height)
    reference = block_means(np.outer(down, across), extent)

    fine = Extent(extent.width * SUBCELLS, extent.height * SUBCELLS)
    region = Region.from_box(Box(x0, y0, x1, y1).normalised(fine), feather=feather)

    np.testing.assert_allclose(region.rasterise(extent).numpy(), reference, atol=1e-6)


@fuzz
@given(extents, extents, st.integers(0, 2**32 - 1))
def test_a_mask_covers_each_cell_by_its_share_of_the_supersampled_raster(size, extent, seed):
    mask = np.random.default_rng(seed).random((size.height, size.width)).astype(np.float32)
    mask[mask < 0.4] = 0
    fine = mask.repeat(extent.height, axis=0).repeat(extent.width, axis=1)  # a multiple of both sizes
    region = Region.from_mask(torch.from_numpy(mask))
    weights = np.zeros((extent.height, extent.width)) if region is None else region.rasterise(extent).numpy()
    np.testing.assert_allclose(weights, block_means(fine, extent), atol=1e-6)


@fuzz
@given(boxes, st.floats(0, 1), st.floats(0, 0.5), extents)
def test_a_box_is_exactly_0_outside_and_exactly_1_deep_inside(box, grow, feather, extent):
    region = Region.from_box(box, grow=grow, feather=feather)
    grown = box.grown(grow)
    if region is None:
        assert grown.intersection(WHOLE_PICTURE).area == 0
        return
    weights = region.rasterise(extent)
    soft_x, soft_y = feather * grown.width, feather * grown.height
    margin = 1e-8
    for row in range(extent.height):
        for column in range(extent.width):
            cell = Box(column, row, column + 1, row + 1).normalised(extent)
            if cell.intersection(grown).area == 0:
                assert weights[row, column] == 0
            deep_x = (grown.x0 <= 0 or cell.x0 >= grown.x0 + soft_x + margin) and (
                grown.x1 >= 1 or cell.x1 <= grown.x1 - soft_x - margin
            )
            deep_y = (grown.y0 <= 0 or cell.y0 >= grown.y0 + soft_y + margin) and (
                grown.y1 >= 1 or cell.y1 <= grown.y1 - soft_y - margin
            )
            if deep_x and deep_y:
                assert weights[row, column] == 1


@fuzz
@given(st.integers(1, 8192), st.data())
def test_a_box_of_whole_pixels_is_those_pixels_exactly(width, data):
    start = data.draw(st.integers(0, width - 1))
    end = data.draw(st.integers(start + 1, width))
    extent = Extent(width, 1)
    expected = torch.zeros(1, width)
    expected[:, start:end] = 1
    box = Box(start, 0, end, 1).normalised(extent)
    assert torch.equal(Region.from_box(box).rasterise(extent), expected)
    assert torch.equal(Region.from_mask(expected).rasterise(extent), expected)


@quick
@given(
    boxes, st.floats(0, 0.5), st.sampled_from([(1, 1), (3, 5), (64, 64), (97, 1), (1, 8192), (8192, 3), (2048, 1536)])
)
def test_the_mean_weight_is_the_same_at_every_size(box, feather, size):
    region = Region.from_box(box, feather=feather)
    if region is not None:
        whole = region.rasterise(Extent(1, 1)).double().mean()
        assert region.rasterise(Extent(*size)).double().mean() == pytest.approx(whole.item(), abs=2e-7)


def test_an_8k_mask_and_an_8k_raster():
    mask = torch.zeros(512, 8192)
    mask[100:356, 7000:7900] = 1
    region = Region.from_mask(mask)
    assert region.mask.shape == (256, 900)  # only the part that is not empty is kept
    assert torch.equal(region.rasterise(Extent(8192, 512)), mask)
    assert region.rasterise(Extent(8, 1)).sum() * 1024 * 512 == 256 * 900


@fuzz
@given(st.floats(0, 2), st.floats(0, 0.5), extents)
def test_what_covers_the_picture_is_1_everywhere(grow, feather, extent):
    ones = torch.ones(extent.height, extent.width)
    assert torch.equal(Region.from_box(WHOLE_PICTURE, grow=grow, feather=feather).rasterise(extent), ones)
    assert torch.equal(Region.from_mask(torch.ones(7, 5), grow=grow, feather=feather).rasterise(extent), ones)


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.2, 0.5]))
def test_a_masks_edge_moves_out_and_softens_inwards(seed, grow, feather):
    rng = np.random.default_rng(seed)
    inside = np.zeros((14, 17), bool)
    y, x = rng.integers(2, 7, 2)
    inside[y : y + rng.integers(2, 6), x : x + rng.integers(2, 8)] = True
    if not (grow or feather):
        return
    # Reference: the distance of each pixel's centre to the nearest centre on the other side, less half a pixel.
    points = np.stack(np.mgrid[:14, :17], axis=-1).reshape(-1, 2)
    flat = inside.reshape(-1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    depth = np.where(flat, distances[:, ~flat].min(1) - 0.5, 0.5 - distances[:, flat].min(1))
    rows, columns = inside.any(1).sum(), inside.any(0).sum()
    side = (rows + columns) / 2
    depth = depth + grow * side
    soft = feather * side * (1 + 2 * grow)
    reference = (depth / soft).clip(0, 1) if feather else (depth > 0).astype(float)

    region = Region.from_mask(torch.from_numpy(inside).float() * 0.5, grow=grow, feather=feather)

    weights = region.rasterise(Extent(17, 14)).numpy().reshape(-1)
    np.testing.assert_allclose(weights, reference * 0.5, atol=1e-4)  # the mask's strength is kept


@fuzz
@given(st.integers(1, 5), extents, st.integers(0, 2**32 - 1))
def test_shared_weights_sum_to_at_most_1_and_keep_their_proportions(num_regions, extent, seed):
    generator = torch.Generator().manual_seed(seed)
    regions = torch.rand(num_regions, extent.height, extent.width, generator=generator)
    shared = share_overlap(regions)
    total = regions.sum(0)
    assert (shared.sum(0) <= 1 + 1e-6).all()
    assert torch.equal(shared[:, total < 0.999], regions[:, total < 0.999])
    torch.testing.assert_close(shared * total.clamp(min=1), regions)
    order = torch.randperm(num_regions, generator=generator)
    assert torch.equal(share_overlap(regions[order]), shared[order])


def test_a_region_listed_twice_counts_once():
    region = torch.tensor([[[0.0, 0.5, 0.75, 1.0]]])
    assert torch.equal(share_overlap(torch.cat([region, region])).sum(0)[0, 2:], torch.ones(2))


def test_unusable_regions_are_none():
    assert Region.from_box(Box(1.2, 0, 1.4, 1)) is None
    assert Region.from_box(Box(0.5, 0.5, 0.5, 0.9)) is None
    assert Region.from_box(Box(0.9, 0, 0.1, 1)) is None  # corners swapped
    assert Region.from_mask(torch.zeros(4, 4)) is None
    assert Region.from_mask(torch.full((4, 4), math.nan)) is None


@pytest.mark.parametrize(("grow", "feather", "told"), [(-0.1, 0, "grow is -0.1"), (0, 0.6, "feather is 0.6")])
def test_edges_out_of_range_are_refused(grow, feather, told):
    with pytest.raises(InvalidInputError, match=told):
        Region.from_box(WHOLE_PICTURE, grow=grow, feather=feather)
    with pytest.raises(InvalidInputError, match=told):
        Region.from_mask(torch.ones(2, 2), grow=grow, feather=feather)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(InvalidInputError, match=r"it is \(1, 4, 4\)"):
        Region.from_mask(torch.ones(1, 4, 4))
