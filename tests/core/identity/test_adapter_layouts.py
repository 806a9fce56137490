"""Adapter files are recognised by their tensors, and a file with one wrong tensor is refused."""

import json

import pytest
import torch
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import (
    BaseModelError,
    CheckpointKeyError,
    CheckpointShapeError,
    FPGAError,
    InvalidInputError,
    UnknownFormatError,
)
from fpga.fpga_core.identity.adapter_layouts import Variant, read_identity_adapter
from fpga.fpga_core.identity.adapters import LowRank
from fpga.fpga_core.identity.recipes import AdapterKind
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_adapters import (
    ANTELOPEV2,
    BUFFALO_L,
    faceid,
    faceid_plus,
    faceid_portrait,
    flat,
    instantid,
    plus_face,
    read_adapter,
)
from safetensors.torch import save, save_file

KINDS = {
    faceid: (AdapterKind.FACEID, 4, BUFFALO_L, False, True),
    faceid_plus: (AdapterKind.FACEID_PLUS_V2, 4, BUFFALO_L, True, True),
    faceid_portrait: (AdapterKind.FACEID_PORTRAIT, 16, BUFFALO_L, False, False),
    plus_face: (AdapterKind.PLUS_FACE, 16, None, True, False),
    instantid: (AdapterKind.INSTANTID, 16, ANTELOPEV2, False, False),
}
"""What each builder's file is: kind, tokens, recogniser, whether it reads CLIP features, whether it has a LoRA."""


@pytest.mark.parametrize(("base", "token_dim", "num_blocks"), [("sd15", 768, 16), ("sdxl", 2048, 70), ("tiny", 64, 7)])
@pytest.mark.parametrize("build", KINDS)
@pytest.mark.parametrize("arrange", [flat, dict])
def test_every_public_format_is_recognised(build, base, token_dim, num_blocks, arrange):
    kind, num_tokens, recogniser, reads_clip, has_lora = KINDS[build]
    adapter = read_adapter(arrange(build(base, device="meta")), name="a-name-that-says-nothing.bin")
    assert (adapter.kind, adapter.base, adapter.recogniser) == (kind, base, recogniser)
    assert (adapter.num_tokens, adapter.token_dim) == (num_tokens, token_dim)
    assert adapter.clip_dim == ((48 if base == "tiny" else 1280) if reads_clip else None)
    assert len(adapter.projections) == num_blocks
    assert all(value.shape == key.shape for key, value in adapter.projections.values())
    assert (adapter.lora is not None) == has_lora
    assert adapter.branch_hash is None


@pytest.mark.parametrize("name", ["faceid-plusv2_sdxl.bin", "instantid.bin", "plus-face_sd15.bin"])
def test_the_name_is_never_asked(name):
    adapter = read_adapter(faceid("sd15", device="meta"), name=name)
    assert (adapter.kind, adapter.base) == (AdapterKind.FACEID, "sd15")


def test_pickled_and_safetensors_files_give_the_same_adapter(tmp_path):
    file = faceid_plus("tiny", lora_rank=2)
    torch.save(file, tmp_path / "adapter.bin")
    save_file(flat(file), tmp_path / "adapter.safetensors")
    pickled = read_adapter(torch.load(tmp_path / "adapter.bin", weights_only=True))
    mapped = read_adapter(read_safetensors(tmp_path / "adapter.safetensors")[0])
    assert pickled.resampler.state_dict().keys() == mapped.resampler.state_dict().keys()
    for name, tensor in mapped.resampler.state_dict().items():
        assert torch.equal(pickled.resampler.state_dict()[name], tensor)
    assert pickled.lora.keys() == mapped.lora.keys()


def test_faceid_plusv2_has_as_many_parameters_as_the_published_file():
    """The file has 156,558,509 bytes of half precision and some pickle."""
    file = flat(faceid_plus("sd15", device="meta"))
    assert sum(tensor.numel() for tensor in file.values()) == 78_260_736


def test_plus_face_is_as_large_as_the_published_file():
    """98,183,288 bytes: the tensors in half precision, and the header that safetensors writes for their names."""
    file = flat(plus_face("sd15", device="meta"))
    num_bytes = 2 * sum(tensor.numel() for tensor in file.values())
    empty = save({name: torch.empty(0, dtype=torch.float16) for name in file})
    header = json.loads(empty[8:])
    start = 0
    for name in header:  # what the header says of tensors that are not empty
        stop = start + 2 * file[name].numel()
        header[name] |= {"shape": list(file[name].shape), "data_offsets": [start, stop]}
        start = stop
    header_bytes = len(json.dumps(header, separators=(",", ":")))
    assert 8 + -(-header_bytes // 8) * 8 + num_bytes == 98_183_288


def test_the_lora_inside_the_file_is_named_by_comfyui_paths():
    file = faceid("sd15", device="meta")
    numbers, lora = file["ip_adapter"], read_adapter(file).lora
    for key, path, shape in (
        ("0.to_q", "input_blocks.1.1.transformer_blocks.0.attn1.to_q", (320, 320)),
        ("1.to_k", "input_blocks.1.1.transformer_blocks.0.attn2.to_k", (320, 768)),
        ("11.to_v", "input_blocks.8.1.transformer_blocks.0.attn2.to_v", (1280, 768)),
        ("12.to_k", "output_blocks.3.1.transformer_blocks.0.attn1.to_k", (1280, 1280)),
        ("29.to_out", "output_blocks.11.1.transformer_blocks.0.attn2.to_out.0", (320, 320)),
        ("30.to_out", "middle_block.1.transformer_blocks.0.attn1.to_out.0", (1280, 1280)),
    ):
        assert lora[path] == LowRank(numbers[f"{key}_lora.down.weight"], numbers[f"{key}_lora.up.weight"])
        assert (lora[path].up @ lora[path].down).shape == shape
    assert len(lora) == 16 * 2 * 4


def test_the_lora_can_be_left_out():
    assert read_adapter(faceid("tiny", lora_rank=2), use_lora=False).lora is None


def test_variants_of_equal_tensors_are_chosen_by_the_user():
    kinds = {
        variant: read_adapter(build("tiny", device="meta"), variant=variant).kind
        for build, variants in ((faceid_plus, (Variant.PLUS_V1, Variant.PLUS_V2)), (instantid, (Variant.INSTANTID,)))
        for variant in variants
    }
    assert kinds[Variant.PLUS_V1] is AdapterKind.FACEID_PLUS
    assert kinds[Variant.PLUS_V2] is AdapterKind.FACEID_PLUS_V2
    assert kinds[Variant.INSTANTID] is AdapterKind.INSTANTID
    unnorm = read_adapter(instantid("sdxl", device="meta"), variant=Variant.PORTRAIT_UNNORM)
    assert (unnorm.kind, unnorm.recogniser) == (AdapterKind.FACEID_PORTRAIT_UNNORM, BUFFALO_L)


@pytest.mark.parametrize(
    ("build", "name", "kind", "why"),
    [
        (faceid_plus, "ip-adapter-faceid-plus_sd15.bin", AdapterKind.FACEID_PLUS, "its name says so"),
        (faceid_plus, "ip-adapter-faceid-plusv2_sd15.bin", AdapterKind.FACEID_PLUS_V2, "its name says so"),
        (faceid_plus, "old/IP-Adapter-FaceID-PlusV2_SDXL.bin", AdapterKind.FACEID_PLUS_V2, "its name says so"),
        (faceid_plus, "mine.safetensors", AdapterKind.FACEID_PLUS_V2, "that is the more common one"),
        (instantid, "ip-adapter-faceid-portrait_sdxl_unnorm.bin", AdapterKind.FACEID_PORTRAIT_UNNORM, "name says so"),
        (instantid, "instantid/ip-adapter.bin", AdapterKind.INSTANTID, "its name says so"),
        (instantid, "ip-adapter.bin", AdapterKind.INSTANTID, "that is the more common one"),
        (instantid, "portrait/ip-adapter.bin", AdapterKind.INSTANTID, "that is the more common one"),
    ],
)
def test_where_the_tensors_leave_two_kinds_the_name_is_a_hint_and_the_choice_is_shown(build, name, kind, why):
    adapter = read_adapter(build("tiny", device="meta"), name)
    assert adapter.kind is kind
    first, choice = adapter.description.splitlines()
    assert first.startswith(f"{kind.value} for tiny")
    assert choice.startswith(f"read as {kind.value}, because") and why in choice
    other = choice.rpartition("set variant to ")[2]
    assert read_adapter(build("tiny", device="meta"), name, variant=Variant(other)).kind is not kind


@pytest.mark.parametrize("name", ["ip-adapter-faceid-plus_sd15.bin", "instantid.bin", "portrait_unnorm.bin"])
def test_a_name_says_nothing_where_the_tensors_decide(name):
    for build, kind in ((faceid, AdapterKind.FACEID), (plus_face, AdapterKind.PLUS_FACE)):
        adapter = read_adapter(build("tiny", device="meta"), name)
        assert (adapter.kind, adapter.choice) == (kind, "")


def test_a_variant_that_the_tensors_exclude_is_refused():
    with pytest.raises(InvalidInputError, match=r"cannot be 'plus_v1'; set the variant to auto$"):
        read_adapter(faceid("tiny"), variant=Variant.PLUS_V1)
    with pytest.raises(InvalidInputError, match="set the variant to auto or instantid or portrait_unnorm"):
        read_adapter(instantid("tiny"), variant=Variant.PLUS_V2)


def test_other_files_are_named():
    tensor = torch.zeros(2, 2)
    for state, message in (
        ({}, "holds no 'image_proj.' tensors.*nothing"),
        ({"down_blocks.0.to_k_lora.up.weight": tensor}, "is a LoRA, not an identity adapter"),
        ({"model.diffusion_model.out.2.weight": tensor}, "holds no 'image_proj.' tensors"),
        ({"image_proj": {"proj.weight": tensor}, "ip_adapter": {"1.to_k_ip.weight": tensor}}, "plain IP-Adapter"),
        ({"image_proj": {"proj.3.weight": tensor}, "ip_adapter": {"1.to_k_ip.weight": tensor}}, "full-face"),
        (
            {"image_proj": {"what": tensor}, "ip_adapter": {"1.to_k_ip.weight": tensor}},
            "a layout that the pack does not know",
        ),
    ):
        with pytest.raises(UnknownFormatError, match=message):
            read_identity_adapter(state, None, "other.bin")


def test_faults_are_named_with_their_tensors():
    file = flat(faceid("tiny", lora_rank=2))
    without = {name: tensor for name, tensor in file.items() if name != "ip_adapter.13.to_v_ip.weight"}
    with pytest.raises(CheckpointKeyError, match=r"1 missing \(ip_adapter\.13\.to_v_ip\.weight\)"):
        read_adapter(without)
    with pytest.raises(CheckpointKeyError, match=r"1 that do not belong \(ip_adapter\.15\.to_k_ip\.weight\)"):
        read_adapter({**file, "ip_adapter.15.to_k_ip.weight": torch.zeros(64, 64)})
    with pytest.raises(CheckpointKeyError, match="do not belong in an identity adapter: optimizer"):
        read_adapter({**file, "optimizer": torch.zeros(1)})
    with pytest.raises(CheckpointShapeError, match=r"'ip_adapter\.1\.to_k_ip\.weight' .* is \(64, 32\), .* \(32, 64\)"):
        read_adapter({**file, "ip_adapter.1.to_k_ip.weight": torch.zeros(64, 32)})
    with pytest.raises(CheckpointShapeError, match=r"'image_proj\.proj\.0\.weight' .* \(1024, 256\), .* \(1024, 512\)"):
        read_adapter({**file, "image_proj.proj.0.weight": torch.zeros(1024, 256)})


def test_an_adapter_for_an_unknown_architecture_is_refused():
    with pytest.raises(BaseModelError, match=r"tokens of 'sd2\.bin' are 64 wide.*sd15 \(768\), sdxl \(2048\)"):
        read_identity_adapter(faceid("tiny"), None, "sd2.bin")


CHANGES = ("remove", "rename", "grow", "shrink", "flatten", "integers", "no tensor", "duplicate")


def changed(file, group, name, change, axis):
    """A copy of a nested file with one tensor damaged."""
    file = {key: dict(tensors) for key, tensors in file.items()}
    tensor = file[group].pop(name)
    axis %= tensor.ndim
    if change == "grow":
        file[group][name] = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
    elif change == "shrink":
        file[group][name] = tensor.narrow(axis, 0, tensor.shape[axis] - 1)
    elif change == "flatten":
        file[group][name] = tensor.flatten() if tensor.ndim > 1 else tensor[None]
    elif change == "integers":
        file[group][name] = tensor.to(torch.int32)
    elif change == "no tensor":
        file[group][name] = [1.0, 2.0]
    elif change == "rename":
        file[group][f"{name}_"] = tensor
    elif change == "duplicate":
        file[group] |= {name: tensor, f"0.{name}": tensor}
    return file


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damaged_file_is_accepted(data):
    build = data.draw(st.sampled_from(sorted(KINDS, key=lambda build: build.__name__)))
    file = build("tiny", device="meta")
    group = data.draw(st.sampled_from(sorted(file)))
    name = data.draw(st.sampled_from(sorted(file[group])))
    change, axis = data.draw(st.sampled_from(CHANGES)), data.draw(st.integers(0, 2))
    # Two sizes are a resampler's own choice: how many tokens it makes, and how wide the features are that it reads.
    assume(not (name == "latents" and axis % 3 == 1 and change in ("grow", "shrink")))
    assume(not (name.endswith("proj_in.weight") and axis % 2 == 1 and change in ("grow", "shrink")))
    with pytest.raises(FPGAError):
        read_adapter(changed(file, group, name, change, axis))
