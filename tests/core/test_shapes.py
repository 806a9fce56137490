"""The one check of masks: what is let through is a mask from 0 to 1."""

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.restoration.masks import fit_masks
from fpga.fpga_core.shapes import as_masks

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF, -INF, 255.0, 1.6, -1.0])
def test_masks_that_are_none_are_refused_with_what_to_do(value):
    mask = torch.rand(2, 8, 8)
    mask[1, 3, 4] = value
    for check in (as_masks, lambda masks: fit_masks(masks, torch.zeros(1, 8, 8, 3))):
        with pytest.raises(InvalidInputError, match=r"^(use another mask|divide the mask by its largest value)"):
            check(mask)


def test_masks_from_0_to_1_stay_as_they_are_and_overshoots_are_clamped():
    mask = torch.rand(2, 8, 8)
    assert torch.equal(as_masks(mask), mask)
    assert torch.equal(as_masks(mask[0]), mask[:1]) and torch.equal(as_masks(mask[:, None]), mask)
    assert as_masks(torch.tensor([[[-0.1, 0.5, 1.2]]])).tolist() == [[[0.0, 0.5, 1.0]]]
    assert torch.equal(as_masks(torch.ones(1, 2, 2, dtype=torch.bool)), torch.ones(1, 2, 2))


@pytest.mark.parametrize("shape", [(8,), (0, 8, 8), (1, 2, 8, 8), (1, 8, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ShapeMismatchError, match="connect a MASK"):
        as_masks(torch.zeros(shape))
