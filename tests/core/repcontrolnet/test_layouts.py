"""RepControlNet files: recognised by their tensors, read exactly, refused with a named error if anything is wrong."""

import json
import re

import pytest
import torch
from fpga.fpga_core.checkpoints import hash_state_dict, read_safetensors, write_safetensors
from fpga.fpga_core.errors import (
    BaseModelError,
    CheckpointKeyError,
    CheckpointReadError,
    CheckpointShapeError,
    InvalidInputError,
    UnknownFormatError,
)
from fpga.fpga_core.repcontrolnet.branch import BranchHeader, RepControlNet
from fpga.fpga_core.repcontrolnet.export import as_file_contents, write_hint_encoder, write_repcontrolnet
from fpga.fpga_core.repcontrolnet.folding import check_branch_fits
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from tiny_branches import BASE, third_party_state_dict, tiny_branch, tiny_layers


def assert_same_tensors(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_branch_that_is_written_is_read_back(tmp_path, dtype):
    full = tiny_branch()
    weights = {name: tensor.to(dtype) for name, tensor in full.weights.items()}
    branch = RepControlNet.from_weights(
        "tiny", weights, full.hint_encoder, conditions=("skeleton",), trained_on="größere Daten"
    )
    write_repcontrolnet(branch, tmp_path / "any_name.safetensors")
    read = read_repcontrolnet(*read_safetensors(tmp_path / "any_name.safetensors"), "any_name")
    assert_same_tensors(read.weights, branch.weights)
    assert_same_tensors(read.hint_encoder, branch.hint_encoder)
    assert vars(read.header) == vars(branch.header) and read.name == "any_name"
    check_branch_fits(read, tiny_layers())


def test_the_file_is_as_documented(tmp_path):
    branch = tiny_branch()
    write_repcontrolnet(branch, tmp_path / "file")
    tensors, metadata = read_safetensors(tmp_path / "file")
    assert {key.split(".")[0] for key in tensors} == {"modal", "adapter"}
    assert torch.equal(tensors["modal.input_blocks.2.0.op.bias"], branch.weights["input_blocks.2.0.op.bias"])
    assert torch.equal(tensors["adapter.14.weight"], branch.hint_encoder["14.weight"])
    assert metadata == {
        "format": "fpga-repcontrolnet",
        "version": "1",
        "contents": "branch",
        "base": BASE,
        "conditions": '["skeleton", "landmarks"]',
        "trained_on": "random numbers",
        "branch_hash": hash_state_dict(branch.weights),
        "adapter_hash": hash_state_dict(branch.hint_encoder),
    }


def test_the_hint_encoder_alone_still_names_its_branch(tmp_path):
    branch = tiny_branch()
    write_hint_encoder(branch, tmp_path / "file")
    tensors, metadata = read_safetensors(tmp_path / "file")
    assert {key.split(".")[0] for key in tensors} == {"adapter"} and metadata["contents"] == "adapter"
    read = read_repcontrolnet(tensors, metadata, "pose")
    assert read.is_hint_encoder_only and vars(read.header) == vars(branch.header)
    assert_same_tensors(read.hint_encoder, branch.hint_encoder)


def test_the_third_party_layout_gives_the_same_branch():
    branch = tiny_branch()
    for metadata in (None, {}, {"format": "pt"}):
        read = read_repcontrolnet(third_party_state_dict(branch), metadata, "pose")
        assert_same_tensors(read.weights, branch.weights)
        assert_same_tensors(read.hint_encoder, branch.hint_encoder)
        assert vars(read.header) == vars(
            BranchHeader(base=BASE, conditions=(), trained_on="", branch_hash=branch.header.branch_hash)
        )
        check_branch_fits(read, tiny_layers())


def test_a_third_party_file_that_copies_some_layers_only_does_not_fit():
    """The research code has a variant without copies of the feed-forward layers."""
    state_dict = {key: tensor for key, tensor in third_party_state_dict(tiny_branch()).items() if "ff_rep" not in key}
    with pytest.raises(CheckpointKeyError, match=r"2 missing \(.*ff.net.0.proj.bias, .*ff.net.0.proj.weight\)"):
        check_branch_fits(read_repcontrolnet(state_dict, None, "lite"), tiny_layers())


def test_a_third_party_file_without_a_hint_encoder_is_named():
    state_dict = {key: tensor for key, tensor in third_party_state_dict(tiny_branch()).items() if "_rep" in key}
    with pytest.raises(CheckpointKeyError, match="16 missing"):
        read_repcontrolnet(state_dict, None, "pose")


OTHER_FILES = {
    "a ControlNet": ["control_model.input_hint_block.0.weight", "control_model.input_blocks.0.0.weight"],
    "a ControlNet ": ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
    "a T2I-Adapter": ["adapter.body.0.resnets.0.block1.weight", "adapter.conv_in.weight"],
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
    "a LoRA ": ["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"],
    "an IP-Adapter": ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"],
    "a whole checkpoint": ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"],
    "a diffusion model": ["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"],
    "a VAE": ["decoder.conv_in.weight"],
    "a text or image encoder": ["text_model.encoder.layers.0.layer_norm1.weight"],
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_another_file_is_called_what_it_is(kind):
    state_dict = {name: torch.zeros(2) for name in OTHER_FILES[kind]}
    with pytest.raises(UnknownFormatError, match=f"'pose' is not a RepControlNet: it looks like {kind.strip()};"):
        read_repcontrolnet(state_dict, None, "pose")


def test_an_unknown_file_is_told_by_its_entries():
    with pytest.raises(UnknownFormatError, match=r"it holds 2 entries \(bar, foo\)"):
        read_repcontrolnet({"foo": torch.zeros(1), "bar": torch.zeros(1)}, {}, "pose")
    with pytest.raises(UnknownFormatError, match="it holds no tensors"):
        read_repcontrolnet({}, {}, "pose")


def changed(metadata=None, tensors=None, without=()):
    old_tensors, old_metadata = as_file_contents(tiny_branch())
    merged = {**old_metadata, **(metadata or {})}, {**old_tensors, **(tensors or {})}
    new_metadata, new_tensors = ({key: value for key, value in part.items() if key not in without} for part in merged)
    return new_tensors, new_metadata


@pytest.mark.parametrize("key", ["contents", "base", "conditions", "trained_on", "branch_hash", "adapter_hash"])
def test_a_missing_header_entry_is_named(key):
    with pytest.raises(UnknownFormatError, match=f"the header of 'pose' does not contain {key};"):
        read_repcontrolnet(*changed(without=(key,)), "pose")


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"format": "pt"}, UnknownFormatError, "the format in its header is 'pt', not 'fpga-repcontrolnet'"),
        ({"version": "2"}, UnknownFormatError, "has version 2 of the format 'fpga-repcontrolnet'.*update the pack"),
        ({"version": ""}, UnknownFormatError, "the version in the header of .* is ''"),
        ({"version": "one"}, UnknownFormatError, "the version in the header of .* is 'one'"),
        ({"version": "²"}, UnknownFormatError, "the version in the header of .* is '²'"),
        ({"contents": "half"}, UnknownFormatError, "the contents in the header of .* are 'half'"),
        (
            {"contents": "adapter"},
            CheckpointKeyError,
            "the contents in the header of 'pose' are 'adapter', but the file holds 35 'modal.'",
        ),
        ({"conditions": "skeleton"}, UnknownFormatError, "conditions in the header"),
        ({"conditions": "[1]"}, UnknownFormatError, "conditions in the header"),
        ({"conditions": "[" * 100_000}, UnknownFormatError, "conditions in the header"),
        ({"base": "sd15"}, BaseModelError, "says it is for sd15, but its tensors are those of unet-12"),
        (
            {"branch_hash": "0" * 64},
            CheckpointReadError,
            "'pose' is damaged.*hash of its branch is .* says 000000000000",
        ),
        ({"adapter_hash": "0" * 64}, CheckpointReadError, "'pose' is damaged.*hash of its hint encoder"),
    ],
)
def test_a_wrong_header_entry_is_named(metadata, error, message):
    with pytest.raises(error, match=message):
        read_repcontrolnet(*changed(metadata), "pose")


def test_a_newer_version_is_told_whatever_its_header_holds():
    with pytest.raises(UnknownFormatError, match="update the pack"):
        read_repcontrolnet(changed()[0], {"format": "fpga-repcontrolnet", "version": "3"}, "pose")
    with pytest.raises(UnknownFormatError, match="the version in the header of .* is ''"):
        read_repcontrolnet(*changed(without=("version",)), "pose")


def test_tensors_without_a_header_are_refused():
    with pytest.raises(UnknownFormatError, match="saved it without the header"):
        read_repcontrolnet(changed()[0], None, "pose")


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({"modal.out.2.bias": torch.zeros(4)}, CheckpointReadError, "'pose' is damaged.*hash of its branch"),
        ({"adapter.0.bias": torch.zeros(2)}, CheckpointReadError, "'pose' is damaged.*hash of its hint encoder"),
        ({"adapter.0.bias": torch.zeros(3)}, CheckpointShapeError, "adapter.0 in 'pose'"),
        ({"adapter.16.bias": torch.zeros(3)}, CheckpointKeyError, r"1 that do not belong \(adapter.16.bias\)"),
        ({"optimizer.step": torch.zeros(1)}, CheckpointKeyError, r"not belong in a RepControlNet \(optimizer.step\)"),
        ({7: torch.zeros(1)}, CheckpointKeyError, r"not belong in a RepControlNet \(7\)"),
        ({"modal.out.2.bias": torch.zeros(4).bool()}, UnknownFormatError, "'modal.out.2.bias' in 'pose' is torch.bool"),
        ({"epoch": 3}, UnknownFormatError, "'epoch' in 'pose' is int"),
    ],
)
def test_a_wrong_tensor_is_named(tensors, error, message):
    with pytest.raises(error, match=message):
        read_repcontrolnet(*changed(tensors=tensors), "pose")


def test_a_lost_layer_of_the_hint_encoder_is_named():
    with pytest.raises(CheckpointKeyError, match=r"1 missing \(adapter.6.weight\)"):
        read_repcontrolnet(*changed(without=("adapter.6.weight",)), "pose")


def test_a_lost_copy_is_told_by_the_hash():
    with pytest.raises(CheckpointReadError, match="'pose' is damaged.*hash of its branch"):
        read_repcontrolnet(*changed(without=("modal.out.2.bias",)), "pose")


def test_a_branch_whose_header_is_another_ones_is_not_written(tmp_path):
    branch, other = tiny_branch(), tiny_branch(seed=1)
    mixed = RepControlNet("mixed", other.header, branch.weights, branch.hint_encoder)
    with pytest.raises(InvalidInputError, match="the header of 'mixed'.*does not match its weights"):
        write_repcontrolnet(mixed, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_every_message_says_what_to_do():
    advice = re.compile(
        r"use the original|choose another|update the pack|choose a|the file is damaged"
        r"|download it again"
    )
    cases = [
        changed({"version": "9"}),
        changed(without=("base",)),
        ({}, {}),
        changed({"branch_hash": ""}),
        (changed()[0], {}),
    ]
    for tensors, metadata in cases:
        with pytest.raises((UnknownFormatError, CheckpointReadError), match=advice):
            read_repcontrolnet(tensors, metadata, "pose")


def test_conditions_are_json_so_that_any_word_survives(tmp_path):
    branch = tiny_branch()
    words = ('say "hi"', "骨架", "a,b", "")
    worded = RepControlNet.from_weights("tiny", branch.weights, branch.hint_encoder, conditions=words)
    write_safetensors(tmp_path / "file", *as_file_contents(worded))
    tensors, metadata = read_safetensors(tmp_path / "file")
    assert read_repcontrolnet(tensors, metadata, "tiny").header.conditions == words
    assert json.loads(metadata["conditions"]) == list(words)
