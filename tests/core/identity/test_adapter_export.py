"""The pack's own identity adapter file: it reads what it writes, and nothing else."""

import dataclasses
import hashlib
import json

import pytest
import torch
from fpga.fpga_core.block_slots import BlockSlot
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import (
    BaseModelError,
    CheckpointError,
    CheckpointKeyError,
    CheckpointReadError,
    CheckpointShapeError,
    FPGAError,
    InvalidInputError,
    UnknownFormatError,
)
from fpga.fpga_core.identity.adapter_layouts import Variant, read_identity_adapter
from fpga.fpga_core.identity.adapters import Negative
from fpga.fpga_core.identity.export import fpga_adapter_contents, write_fpga_adapter
from fpga.fpga_core.identity.people import KeyValue
from fpga.fpga_core.identity.recipes import AdapterKind
from hypothesis import given, settings
from hypothesis import strategies as st
from published_resamplers import relative_error
from random_adapters import BUFFALO_L, fpga_adapter, plus_face, random_identity, read_adapter


def documented_hash(tensors):
    """`tensors_hash` as docs/formats.md specifies it."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        entry = [name, "float32", list(tensors[name].shape)]
        digest.update(json.dumps(entry, separators=(",", ":")).encode() + b"\n" + tensors[name].numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("clip_model", [None, "vision"])
@pytest.mark.parametrize("trained_null", [True, False])
def test_round_trip(tmp_path, clip_model, trained_null):
    adapter = fpga_adapter("tiny", 3, clip_model, trained_null, branch_hash="ab" * 32)
    write_fpga_adapter(adapter, tmp_path / "any.safetensors")
    found = read_identity_adapter(*read_safetensors(tmp_path / "any.safetensors"), "any.safetensors")
    for field in ("kind", "base", "branch_hash", "recogniser", "clip_model", "negative", "num_tokens", "token_dim"):
        assert getattr(found, field) == getattr(adapter, field), field
    assert found.kind is AdapterKind.FPGA
    assert found.projections is None
    written, read = adapter.resampler.state_dict(), found.resampler.state_dict()
    assert written.keys() == read.keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in written.items())
    assert torch.equal(found.null, adapter.null) if trained_null else found.null is None
    identity = random_identity(clip={"vision": 48})
    assert relative_error(found.tokens(identity), adapter.tokens(identity)) < 1e-6
    assert relative_error(found.null_tokens(identity), adapter.null_tokens(identity)) < 1e-6


def test_the_file_is_as_the_specification_says():
    tensors, header = fpga_adapter_contents(fpga_adapter("sd15", clip_model="vision"))
    assert header == {
        "format": "fpga-identity-adapter",
        "version": "1",
        "base": "sd15",
        "negative": "trained_null",
        "recogniser": BUFFALO_L,
        "clip_model": "vision",
        "branch_hash": "",
        "tensors_hash": documented_hash(tensors),
    }
    assert tensors["null_tokens"].shape == (1, 4, 768)
    assert tensors["resampler.proj.2.weight"].shape == (4 * 768, 1024)
    assert tensors["resampler.perceiver_resampler.proj_in.weight"].shape == (768, 1280)


def test_projections_of_its_own_are_kept(tmp_path):
    generator = torch.Generator().manual_seed(0)
    slots = [BlockSlot("input", 1, 0), BlockSlot("middle", 0, 1), BlockSlot("output", 11, 0)]
    own = {slot: KeyValue(*torch.randn(2, 96, 64, generator=generator)) for slot in slots}
    write_fpga_adapter(dataclasses.replace(fpga_adapter("tiny"), projections=own), tmp_path / "own.safetensors")
    tensors, header = read_safetensors(tmp_path / "own.safetensors")
    path = "projections.middle_block.1.transformer_blocks.1.attn2.to_v.weight"
    assert torch.equal(tensors[path], own[slots[1]].value)
    found = read_identity_adapter(tensors, header, "own")
    assert found.projections.keys() == own.keys()
    assert all(torch.equal(a, b) for slot in slots for a, b in zip(own[slot], found.projections[slot], strict=True))
    rest = {key: tensor for key, tensor in tensors.items() if key != path}
    for change, error, message in (
        ({}, CheckpointKeyError, "1 missing .*attn2.to_v.weight"),
        ({path: torch.zeros(96, 32)}, CheckpointShapeError, r"to_v is \(96, 32\), but its tokens need \(width, 64\)"),
        ({path: torch.ones(96, 64)}, CheckpointReadError, "was changed after it was written"),
        ({path.replace("middle", "side"): torch.ones(96, 64)}, CheckpointKeyError, "does not belong to any layer"),
    ):
        with pytest.raises(error, match=message):
            read_identity_adapter(rest | change, header, "own")


def test_only_fpga_adapters_are_written(tmp_path):
    adapter = fpga_adapter("tiny")
    for change, message in (
        ({"kind": AdapterKind.FACEID}, "IP-Adapter FaceID, not FPGA"),
        ({"lora": {}}, "its own LoRA"),
        ({"projections": {}}, "they are all missing"),
        ({"negative": Negative.ZERO_INPUTS}, "its negative is 'zero_inputs'"),
        ({"null": None}, "its null tokens are None"),
        ({"null": torch.zeros(1, 5, 64)}, r"its null tokens are \(1, 5, 64\)"),
        ({"negative": Negative.SAME_TOKENS}, r"its null tokens are \(1, 4, 64\)"),
        ({"recogniser": None}, "does not name its recogniser"),
        ({"clip_model": "vision"}, "its resampler reads none"),
        ({"base": "sd15"}, "64 wide, which does not fit sd15"),
        ({"structure_strength": 0.5}, "its structure strength"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            write_fpga_adapter(dataclasses.replace(adapter, **change), tmp_path / "adapter.safetensors")
    with pytest.raises(InvalidInputError, match="IP-Adapter plus-face, not FPGA"):
        write_fpga_adapter(read_adapter(plus_face("tiny")), tmp_path / "adapter.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_fpga_adapter(adapter, tmp_path / "no such folder" / "adapter.safetensors")


def test_a_damaged_header_is_named():
    tensors, header = fpga_adapter_contents(fpga_adapter("tiny"))
    for change, error, message in (
        ({"format": ""}, UnknownFormatError, "the format in its header is '', not 'fpga-identity-adapter'"),
        ({"version": "2"}, UnknownFormatError, "has version 2 .* reads only up to version 1; update"),
        ({"version": "one"}, UnknownFormatError, "the version in the header of .* is 'one'"),
        ({"negative": "zeros"}, UnknownFormatError, "'zeros', but only trained_null, same_tokens are known"),
        ({"negative": "same_tokens"}, CheckpointKeyError, r"1 that do not belong \(null_tokens\)"),
        ({"base": "sdxl"}, BaseModelError, "says it is for sdxl, but its tokens are 64 wide"),
        ({"recogniser": ""}, UnknownFormatError, "does not name a recogniser"),
        ({"clip_model": "vision"}, CheckpointKeyError, "'vision', which does not fit its tensors"),
        ({"tensors_hash": "0"}, CheckpointReadError, "was changed after it was written"),
    ):
        with pytest.raises(error, match=message):
            read_identity_adapter(tensors, {**header, **change}, "adapter.safetensors")
    for key in header:
        rest = {other: value for other, value in header.items() if other != key}
        with pytest.raises(UnknownFormatError):
            read_identity_adapter(tensors, rest, "adapter.safetensors")


def test_damaged_tensors_are_named():
    tensors, header = fpga_adapter_contents(fpga_adapter("tiny"))
    integers = torch.zeros(64, dtype=torch.int64)
    for change, error, message in (
        ({"null_tokens": torch.zeros(1, 4, 32)}, CheckpointShapeError, r"\(1, 4, 32\), .* makes \(1, 4, 64\)"),
        ({"null_tokens": torch.ones(1, 4, 64)}, CheckpointReadError, "was changed after it was written"),
        ({"other": torch.zeros(1)}, CheckpointKeyError, r"do not belong \(other\)"),
        ({"resampler.extra": torch.zeros(1)}, CheckpointKeyError, r"do not belong \(resampler.extra\)"),
        ({"resampler.norm.bias": torch.zeros(3)}, CheckpointShapeError, r"is \(3,\), but the model needs \(64,\)"),
        ({"resampler.norm.bias": integers}, UnknownFormatError, "not a floating-point tensor"),
    ):
        with pytest.raises(error, match=message):
            read_identity_adapter({**tensors, **change}, header, "adapter.safetensors")


@pytest.fixture(scope="module")
def file():
    return fpga_adapter_contents(fpga_adapter("tiny", clip_model="vision"))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_file_with_a_tensor_missing_or_changed_is_accepted(file, data):
    tensors, header = dict(file[0]), file[1]
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    if data.draw(st.booleans()):
        tensors[name] = tensor + 1e-3
    with pytest.raises(FPGAError):
        read_identity_adapter(tensors, header, "adapter.safetensors")


def test_it_has_no_variants():
    tensors, header = fpga_adapter_contents(fpga_adapter("tiny"))
    with pytest.raises(InvalidInputError, match="has no variants"):
        read_identity_adapter(tensors, header, "adapter.safetensors", variant=Variant.PLUS_V2)
