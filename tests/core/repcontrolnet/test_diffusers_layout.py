"""The third-party layout: its names, written out by hand, become ComfyUI's."""

import pytest
import torch
from fpga.fpga_core.errors import CheckpointKeyError
from fpga.fpga_core.repcontrolnet.diffusers_layout import (
    block_names,
    convert_diffusers,
    has_twins,
    parameter_name,
)
from tiny_branches import third_party_state_dict, tiny_branch

SD15_RESNETS = [f"down_blocks.{level}.resnets.1.conv1.weight" for level in range(4)] + [
    f"up_blocks.{level}.resnets.2.conv1.weight" for level in range(4)
]
SD15_ATTENTIONS = [f"up_blocks.{level}.attentions.2.norm.weight" for level in (1, 2, 3)]

# Stable Diffusion 1.5, as published in both layouts
SD15_PAIRS = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_2.bias": "time_embed.2.bias",
    "down_blocks.0.resnets.0.conv1.weight": "input_blocks.1.0.in_layers.2.weight",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0.bias": (
        "input_blocks.2.1.transformer_blocks.0.attn1.to_out.0.bias"
    ),
    "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
    "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.2.attentions.0.proj_in.weight": "input_blocks.7.1.proj_in.weight",
    "down_blocks.2.downsamplers.0.conv.bias": "input_blocks.9.0.op.bias",
    "down_blocks.3.resnets.1.time_emb_proj.weight": "input_blocks.11.0.emb_layers.1.weight",
    "mid_block.resnets.0.conv1.weight": "middle_block.0.in_layers.2.weight",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2.bias": "middle_block.1.transformer_blocks.0.ff.net.2.bias",
    "mid_block.resnets.1.conv2.bias": "middle_block.2.out_layers.3.bias",
    "up_blocks.0.resnets.2.conv2.weight": "output_blocks.2.0.out_layers.3.weight",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (
        "output_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"
    ),
    "up_blocks.2.upsamplers.0.conv.bias": "output_blocks.8.2.conv.bias",
    "up_blocks.3.attentions.2.proj_out.weight": "output_blocks.11.1.proj_out.weight",
    "conv_norm_out.weight": "out.0.weight",
    "conv_out.bias": "out.2.bias",
}


@pytest.mark.parametrize("diffusers_name", SD15_PAIRS)
def test_sd15_names(diffusers_name):
    blocks = block_names(SD15_RESNETS + SD15_ATTENTIONS)
    assert parameter_name(diffusers_name, blocks) == SD15_PAIRS[diffusers_name]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "conv_in",
        "conv_middle.weight",
        "down_blocks.0.resnets.0.conv3.weight",
        "down_blocks.0.upsamplers.0.conv.weight",
        "down_blocks.0.downsamplers.1.conv.weight",
        "down_blocks.0.attentions.7.proj_in.weight",
        "down_blocks.x.resnets.0.conv1.weight",
        "up_blocks.9.upsamplers.0.conv.weight",
        "mid_block.attentions.1.proj_in.weight",
        "mid_block.resnets.0.conv3.weight",
        "down_blocks.0.motion_modules.0.proj_in.weight",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn3.to_q.weight",
        "down_blocks.0.attentions.0.proj_in.lora_up",
    ],
)
def test_names_that_no_unet_has(name):
    assert parameter_name(name, block_names(SD15_RESNETS + SD15_ATTENTIONS)) is None


def test_a_file_is_translated_whole():
    branch = tiny_branch()
    weights, hint_encoder = convert_diffusers(third_party_state_dict(branch), "pose")
    assert weights.keys() == branch.weights.keys() and hint_encoder.keys() == branch.hint_encoder.keys()
    assert all(torch.equal(weights[name], branch.weights[name]) for name in weights)
    assert all(torch.equal(hint_encoder[name], branch.hint_encoder[name]) for name in hint_encoder)


def test_the_suffix_may_stand_on_any_part_of_the_path():
    branch = tiny_branch()
    state_dict = {
        key.replace("ff_rep.net.0.proj", "ff.net.0.proj_rep"): tensor
        for key, tensor in third_party_state_dict(branch).items()
    }
    assert convert_diffusers(state_dict, "pose")[0].keys() == branch.weights.keys()


def test_originals_beside_the_copies_are_left_out():
    branch = tiny_branch()
    state_dict = third_party_state_dict(branch)
    originals = {
        key.replace("_rep", ""): torch.zeros_like(tensor) for key, tensor in state_dict.items() if "_rep" in key
    }
    norms = {"conv_norm_out.weight": torch.zeros(8), "down_blocks.0.resnets.0.norm1.bias": torch.zeros(8)}
    weights, _ = convert_diffusers(state_dict | originals | norms, "pose")
    assert weights.keys() == branch.weights.keys()
    assert all(torch.equal(weights[name], branch.weights[name]) for name in weights)


@pytest.mark.parametrize(
    "stranger",
    ["encoder_hid_proj_rep.weight", "controlnet_cond_embedding.blocks.6.weight", "down_blocks.0.ip_adapter.weight"],
)
def test_a_tensor_without_a_place_is_named(stranger):
    state_dict = third_party_state_dict(tiny_branch()) | {stranger: torch.zeros(2)}
    with pytest.raises(CheckpointKeyError, match=rf"'pose'.*1 of its tensors.*\({stranger}\)"):
        convert_diffusers(state_dict, "pose")


def test_two_copies_of_one_layer_are_named():
    state_dict = third_party_state_dict(tiny_branch())
    state_dict["mid_block_rep.resnets.0.conv2.bias"] = torch.zeros(6)
    with pytest.raises(CheckpointKeyError, match=r"mid_block_rep.resnets.0.conv2.bias"):
        convert_diffusers(state_dict, "pose")


def test_the_layout_is_told_by_its_names():
    assert has_twins(["mid_block.resnets.0.conv2_rep.bias"])
    assert not has_twins(["mid_block.resnets.0.conv2.bias", "controlnet_cond_embedding.conv_in.bias", "reps.weight"])
