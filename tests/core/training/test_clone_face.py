"""Splicing, and L_cfa against its formula written out in loops."""

import math

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.method.clone_face import CloneFaceTuning, clone_face_loss, face_boxes, splice
from training_batches import tiny_batch


def masks(*boxes: tuple[int, int, int, int], size=(16, 16)) -> torch.Tensor:
    """Spliced masks with a face in each half: left, top, right, bottom; None = no face."""
    drawn = torch.zeros(len(boxes), 1, *size)
    for mask, box in zip(drawn, boxes, strict=True):
        if box:
            mask[:, box[1] : box[3], box[0] : box[2]] = 1
    return torch.cat([drawn, drawn], dim=-1)


def formula(features, grid, boxes, deviation):
    """Eq. 2 on boxes that lie on the grid's own cells, one cell at a time: mean over cells, channels and pictures."""
    losses, norms = [], []
    for picture, (left, top, right, bottom) in zip(features.tolist(), boxes, strict=True):
        across, down = right - left, bottom - top
        total = squares = count = 0
        for y in range(down):
            for x in range(across):
                u, v = (x + 0.5) / across * 2 - 1, (y + 0.5) / down * 2 - 1
                weight = math.exp(-(u * u + v * v) / (2 * deviation**2))
                first = picture[(top + y) * grid.width + left + x]
                second = picture[(top + y) * grid.width + grid.width // 2 + left + x]
                for a, b in zip(first, second, strict=True):
                    total += ((a - b) * weight) ** 2
                    squares += (weight * a) ** 2 / 2 + (weight * b) ** 2 / 2
                    count += 1
        losses.append(total / count)
        norms.append(squares / count)
    return sum(losses) / len(losses), math.sqrt(sum(norms) / len(norms))


@pytest.mark.parametrize("deviation", [0.5, 3.0])
def test_the_loss_is_eq_2(deviation):
    boxes, grid = [(2, 3, 8, 9), (9, 0, 15, 6)], Extent(32, 16)
    features = torch.randn(2, grid.num_cells, 5, generator=torch.Generator().manual_seed(0))
    tuning = CloneFaceTuning(crop_cells=6, gaussian_deviation=deviation)
    found = clone_face_loss(features, grid, masks=masks(*boxes), tuning=tuning)
    loss, norm = formula(features, grid, boxes, deviation)
    assert float(found.loss) == pytest.approx(loss, rel=1e-5)
    assert float(found.feature_norm) == pytest.approx(norm, rel=1e-5)


def test_the_grid_may_be_coarser_than_the_latent():
    boxes, grid = [(4, 4, 12, 12)], Extent(16, 8)
    features = torch.randn(1, grid.num_cells, 5, generator=torch.Generator().manual_seed(0))
    found = clone_face_loss(features, grid, masks=masks(*boxes), tuning=CloneFaceTuning(crop_cells=4))
    loss, _ = formula(features, grid, [(2, 2, 6, 6)], 0.5)
    assert float(found.loss) == pytest.approx(loss, rel=1e-5)


def test_pictures_without_a_face_do_not_count():
    grid = Extent(32, 16)
    features = torch.randn(2, grid.num_cells, 5, generator=torch.Generator().manual_seed(0))
    one = clone_face_loss(features[:1], grid, masks=masks((2, 3, 8, 9)), tuning=CloneFaceTuning())
    two = clone_face_loss(features, grid, masks=masks((2, 3, 8, 9), None), tuning=CloneFaceTuning())
    none = clone_face_loss(features, grid, masks=masks(None, None), tuning=CloneFaceTuning())
    assert torch.allclose(one.loss, two.loss) and torch.allclose(one.feature_norm, two.feature_norm)
    assert none.loss == 0 and none.feature_norm == 0


def test_equal_halves_cost_nothing_and_vanishing_features_show():
    grid = Extent(32, 16)
    half = torch.randn(1, 16, 16, 5, generator=torch.Generator().manual_seed(0))
    features = torch.cat([half, half], dim=2).flatten(1, 2)
    found = clone_face_loss(features, grid, masks=masks((2, 3, 8, 9)), tuning=CloneFaceTuning())
    collapsed = clone_face_loss(0.01 * features, grid, masks=masks((2, 3, 8, 9)), tuning=CloneFaceTuning())
    assert found.loss < 1e-10 and collapsed.feature_norm == pytest.approx(0.01 * float(found.feature_norm), rel=1e-5)


def test_only_the_faces_learn():
    grid = Extent(32, 16)
    features = torch.randn(1, grid.num_cells, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    clone_face_loss(features, grid, masks=masks((2, 3, 8, 9)), tuning=CloneFaceTuning(crop_cells=6)).loss.backward()
    touched = features.grad.abs().sum(-1).unflatten(1, (16, 32))[0] > 0
    expected = masks((2, 3, 8, 9))[0, 0] > 0
    assert torch.equal(touched, expected)


def test_boxes_leave_out_a_soft_edge():
    mask = torch.zeros(1, 1, 10, 20)
    mask[..., 2:9, 3:15] = 0.3
    mask[..., 3:8, 5:12] = 0.8
    boxes, has_face = face_boxes(mask)
    assert torch.allclose(boxes, torch.tensor([[0.25, 0.3, 0.6, 0.8]])) and has_face.tolist() == [1]
    boxes, has_face = face_boxes(torch.zeros(1, 1, 10, 20))
    assert boxes.tolist() == [[0, 0, 1, 1]] and has_face.tolist() == [0]


@pytest.mark.parametrize("width, stride, expected", [(16, 8, 16), (21, 8, 16), (12, 4, 12), (7, 1, 7)])
def test_the_copy_begins_at_a_multiple_of_the_stride(width, stride, expected):
    batch = tiny_batch(width=width)
    spliced = splice(batch, stride)
    assert spliced.extent == Extent(2 * expected, 16)
    for name, scale in (("latents", 1), ("face_masks", 1), ("skeleton", 8), ("landmarks", 8)):
        original, first, second = getattr(batch, name), *getattr(spliced, name).chunk(2, dim=-1)
        assert torch.equal(first, second) and torch.equal(first, original[..., : expected * scale])
    for name in ("text", "null_text", "embeddings"):
        assert getattr(spliced, name) is getattr(batch, name)


def test_bad_input_is_refused():
    with pytest.raises(InvalidInputError, match=r"needs a width of 32 \(256 px\)"):
        splice(tiny_batch(), 32)
    with pytest.raises(ShapeMismatchError, match="merges or drops tokens"):
        clone_face_loss(torch.zeros(1, 100, 5), Extent(32, 16), masks=masks((2, 3, 8, 9)), tuning=CloneFaceTuning())
    with pytest.raises(InvalidInputError, match="Clone Face Tuning has"):
        CloneFaceTuning(weight=-1)
