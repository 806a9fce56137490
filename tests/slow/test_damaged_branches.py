"""Fuzzing: whatever happens to a file, it is refused with a named error, or gives exactly the same tensors."""

import pytest
import torch
from fpga.fpga_core.checkpoints import hash_state_dict, read_safetensors, write_safetensors
from fpga.fpga_core.errors import BaseModelError, CheckpointError
from fpga.fpga_core.repcontrolnet.branch import RepControlNet
from fpga.fpga_core.repcontrolnet.export import as_file_contents, write_hint_encoder, write_repcontrolnet
from fpga.fpga_core.repcontrolnet.folding import check_branch_fits, check_hint_encoder_fits
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_branches import third_party_state_dict, tiny_branch, tiny_layers

BRANCH = tiny_branch()
LAYERS = tiny_layers()


def load(path) -> RepControlNet:
    """Runs the checks that the nodes do before anything is patched."""
    branch = read_repcontrolnet(*read_safetensors(path), path.name)
    check = check_hint_encoder_fits if branch.is_hint_encoder_only else check_branch_fits
    check(branch, LAYERS)
    return branch


def write_third_party(branch, path):
    write_safetensors(path, third_party_state_dict(branch), {"format": "pt"})


WRITERS = {"branch": write_repcontrolnet, "hint_encoder": write_hint_encoder, "third_party": write_third_party}


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory):
    """Bytes of a whole file, and a path to write damaged ones to."""
    path = tmp_path_factory.mktemp(request.param) / "pose.safetensors"
    WRITERS[request.param](BRANCH, path)
    assert load(path).hint_encoder.keys() == BRANCH.hint_encoder.keys()
    return request.param, path.read_bytes(), path


@settings(max_examples=150, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(written, fraction):
    _, data, path = written
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(CheckpointError):
        load(path)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10**6), mask=st.integers(1, 255), in_header=st.booleans())
def test_one_byte_changed_anywhere(written, position, mask, in_header):
    kind, data, path = written
    end = 8 + int.from_bytes(data[:8], "little") if in_header else len(data)
    damaged = bytearray(data)
    damaged[position % end] ^= mask
    path.write_bytes(damaged)
    try:
        branch = load(path)
    except CheckpointError:
        return
    assert branch.weights.keys() == (BRANCH.weights.keys() if kind != "hint_encoder" else set())
    if kind != "third_party":  # that layout carries no hash
        assert hash_state_dict(branch.hint_encoder) == hash_state_dict(BRANCH.hint_encoder)
        assert hash_state_dict(branch.weights) == (
            hash_state_dict(BRANCH.weights) if kind == "branch" else hash_state_dict({})
        )


SHAPES = st.lists(st.integers(0, 4), max_size=5).map(tuple)
DAMAGES = st.one_of(
    st.tuples(st.just("remove"), st.integers(0, 999), st.none()),
    st.tuples(st.just("rename"), st.integers(0, 999), st.text(st.sampled_from("abc_.0129²é"), max_size=30)),
    st.tuples(st.just("reshape"), st.integers(0, 999), SHAPES),
    st.tuples(st.just("double"), st.integers(0, 999), st.sampled_from(["_rep", "s", ".0", "weight", "99999999999"])),
)
THIRD_PARTY, OWN, OWN_METADATA = third_party_state_dict(BRANCH), *as_file_contents(BRANCH)


@settings(max_examples=300, deadline=None)
@given(damages=st.lists(DAMAGES, min_size=1, max_size=3), is_own=st.booleans(), has_honest_hash=st.booleans())
def test_tensors_removed_renamed_reshaped_or_doubled(damages, is_own, has_honest_hash):
    """This also holds if a careless converter recomputes the hashes. The layers themselves must then show it."""
    original = OWN if is_own else THIRD_PARTY
    state_dict = dict(original)
    for damage, index, value in damages:
        name = list(state_dict)[index % len(state_dict)]
        if damage == "remove":
            del state_dict[name]
        elif damage == "rename":
            state_dict[value] = state_dict.pop(name)
        elif damage == "reshape":
            state_dict[name] = torch.zeros(value)
        else:
            state_dict[f"{name.removesuffix('.weight')}{value}.weight"] = state_dict[name]
    if {name: tensor.shape for name, tensor in state_dict.items()} == {name: t.shape for name, t in original.items()}:
        return
    metadata = dict(OWN_METADATA) if is_own else {}
    if is_own and has_honest_hash:
        for key, prefix in (("branch_hash", "modal."), ("adapter_hash", "adapter.")):
            part = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
            metadata[key] = hash_state_dict(part)
    with pytest.raises(CheckpointError):
        check_branch_fits(read_repcontrolnet(state_dict, metadata, "pose"), LAYERS)


@settings(max_examples=100, deadline=None)
@given(width=st.sampled_from([1, 11, 64, 768, 1024, 1280, 2048]), has_size_embedding=st.booleans())
def test_a_model_of_another_base(width, has_size_embedding):
    layers = LAYERS | {"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.Size([8, width])}
    if has_size_embedding:
        layers["label_emb.0.0.weight"] = torch.Size([10, 16])
    with pytest.raises(BaseModelError):
        check_branch_fits(BRANCH, layers)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), st.sampled_from([torch.zeros(2), torch.zeros(2, 2), 3, None, "x"]), max_size=5)
)
def test_any_dictionary(state_dict):
    with pytest.raises(CheckpointError):
        read_repcontrolnet(state_dict, None, "pose")
