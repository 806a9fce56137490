"""A branch that does not fit the model is refused, and the message says why."""

from dataclasses import replace

import pytest
import torch
from fpga.fpga_core.errors import BaseModelError, CheckpointKeyError, CheckpointShapeError
from fpga.fpga_core.repcontrolnet.branch import RepControlNet
from fpga.fpga_core.repcontrolnet.folding import check_branch_fits, check_hint_encoder_fits, fit_branch
from tiny_branches import tiny_branch, tiny_layers

CROSS_ATTENTION = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def with_weights(branch: RepControlNet, weights: dict) -> RepControlNet:
    return RepControlNet(branch.name, branch.header, weights, branch.hint_encoder)


def test_a_branch_fits_the_model_it_was_copied_from():
    check_branch_fits(tiny_branch(), tiny_layers())


def test_another_base_is_refused_and_both_are_named():
    layers = tiny_layers() | {CROSS_ATTENTION: torch.Size([8, 768])}
    with pytest.raises(BaseModelError, match="'tiny' is a RepControlNet for unet-12, but the connected model is sd15"):
        check_branch_fits(tiny_branch(), layers)
    with pytest.raises(BaseModelError, match="but the connected model is unknown"):
        check_branch_fits(tiny_branch(), {"double_blocks.0.img_mlp.0.weight": torch.Size([4, 4])})


def test_missing_layers_are_listed():
    branch = tiny_branch()
    weights = {name: tensor for name, tensor in branch.weights.items() if not name.startswith("output_blocks.")}
    with pytest.raises(CheckpointKeyError, match=r"12 missing \(output_blocks.0.0.in_layers.2.bias, .* and 7 more\)"):
        check_branch_fits(with_weights(branch, weights), tiny_layers())


def test_layers_that_do_not_belong_are_listed():
    branch = tiny_branch()
    with pytest.raises(CheckpointKeyError, match=r"1 that do not belong \(out.0.weight\)"):
        check_branch_fits(with_weights(branch, {**branch.weights, "out.0.weight": torch.zeros(8)}), tiny_layers())


def test_another_shape_is_given():
    """An inpainting model of the same base reads nine channels instead of four."""
    layers = tiny_layers() | {"input_blocks.0.0.weight": torch.Size([8, 9, 3, 3])}
    with pytest.raises(
        CheckpointShapeError, match=r"'input_blocks.0.0.weight' in 'tiny' is \(8, 4, 3, 3\).*\(8, 9, 3, 3\)"
    ):
        check_branch_fits(tiny_branch(), layers)


def test_a_model_that_reads_more_channels_gets_zeros_for_them():
    branch, wide = tiny_branch(), tiny_layers() | {"input_blocks.0.0.weight": torch.Size([8, 9, 3, 3])}
    fitted = fit_branch(branch, wide)
    copy = fitted.weights["input_blocks.0.0.weight"]
    assert torch.equal(copy[:, :4], branch.weights["input_blocks.0.0.weight"]) and not copy[:, 4:].any()
    assert fitted.header is branch.header and fit_branch(branch, tiny_layers()) is branch
    with pytest.raises(CheckpointShapeError, match=r"\(8, 9, 3, 3\), but the model needs \(8, 4, 3, 3\)"):
        fit_branch(fitted, tiny_layers())


def test_a_hint_encoder_of_another_width_is_refused():
    layers = tiny_layers() | {"input_blocks.0.0.weight": torch.Size([320, 4, 3, 3])}
    with pytest.raises(CheckpointShapeError, match="gives 8 channels, but the model's first convolution gives 320"):
        check_branch_fits(tiny_branch(), layers)


def test_a_hint_encoder_alone_fits_but_does_not_fold():
    alone = with_weights(tiny_branch(), {})
    check_hint_encoder_fits(alone, tiny_layers())
    with pytest.raises(CheckpointKeyError, match="adapter_only"):
        check_branch_fits(alone, tiny_layers())
    other = RepControlNet("pose", replace(alone.header, base="sdxl"), {}, alone.hint_encoder)
    with pytest.raises(BaseModelError, match="'pose' is a RepControlNet for sdxl"):
        check_hint_encoder_fits(other, tiny_layers())
