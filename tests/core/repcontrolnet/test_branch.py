"""The header of a branch, and the start of its training."""

import pytest
import torch
from fpga.fpga_core.checkpoints import hash_state_dict
from fpga.fpga_core.repcontrolnet.branch import RepControlNet, initial_branch, recognise_base
from fpga.fpga_core.repcontrolnet.folding import fold_weight
from tiny_branches import BASE, tiny_branch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_untrained_branch_is_a_tenth_of_the_base_and_folds_to_one_point_one(dtype):
    base = {"a.weight": torch.randn(6, 4).to(dtype), "a.bias": torch.randn(6).to(dtype)}
    branch = initial_branch(base)
    for name, weight in base.items():
        assert branch[name].dtype == dtype
        torch.testing.assert_close(branch[name], 0.1 * weight)
        torch.testing.assert_close(fold_weight(weight, branch[name]), 1.1 * weight)


def test_the_untrained_branch_is_a_copy_without_a_gradient():
    base = {"a.weight": torch.nn.Parameter(torch.ones(2, 2))}
    branch = initial_branch(base, ratio=1.0)
    branch["a.weight"].zero_()
    assert base["a.weight"].sum() == 4 and not branch["a.weight"].requires_grad


def test_the_header_follows_from_the_weights():
    branch = tiny_branch()
    assert branch.header.base == BASE
    assert branch.header.conditions == ("skeleton", "landmarks")
    assert branch.header.branch_hash == hash_state_dict(branch.weights)
    assert branch.header.branch_hash != tiny_branch(seed=1).header.branch_hash
    assert not branch.is_hint_encoder_only
    assert RepControlNet(branch.name, branch.header, {}, branch.hint_encoder).is_hint_encoder_only


@pytest.mark.parametrize(
    ("width", "has_size_embedding", "base"),
    [
        (768, False, "sd15"),
        (2048, True, "sdxl"),
        (1024, False, "sd21"),
        (1280, True, "sdxl-refiner"),
        (2048, False, "unet-2048"),
        (64, False, "unet-64"),
    ],
)
def test_the_base_is_told_by_the_text_width_and_the_size_embedding(width, has_size_embedding, base):
    shapes = {
        "input_blocks.0.0.weight": torch.Size([8, 4, 3, 3]),
        "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": torch.Size([8, 8]),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.Size([8, width]),
    }
    if has_size_embedding:
        shapes["label_emb.0.0.weight"] = torch.Size([8, 2816])
    assert recognise_base(shapes) == base


def test_weights_without_cross_attention_are_of_no_base():
    assert recognise_base({"double_blocks.0.img_attn.qkv.weight": torch.Size([9, 3])}) == "unknown"
    assert recognise_base({"a.attn2.to_k.weight": torch.Size([])}) == "unknown"
