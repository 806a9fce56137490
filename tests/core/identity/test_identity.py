"""Identities: how photos are combined, what does not fit together, and the identity file."""

import json
import struct

import numpy as np
import pytest
import torch
from fpga.fpga_core.checkpoints import read_safetensors, write_safetensors
from fpga.fpga_core.errors import (
    CheckpointError,
    CheckpointKeyError,
    CheckpointReadError,
    CheckpointShapeError,
    InvalidInputError,
    ShapeMismatchError,
    UnknownFormatError,
)
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.identity_file import identity_tensors, load_identity, save_identity
from fpga.fpga_core.identity.recognisers import ANTELOPEV2, AURAFACE, BUFFALO_L, KNOWN_RECOGNISERS, recogniser_name
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CLIP = "clip-1280x257-0123456789abcdef"


def photos(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 512, generator=torch.Generator().manual_seed(seed)) * 20


def hidden(count: int, tokens: int = 5, width: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, tokens, width, generator=torch.Generator().manual_seed(seed))


def person(count: int = 3, combine: str = "mean", **parts) -> Identity:
    parts = parts or {"embeddings": {BUFFALO_L: photos(count)}}
    return Identity("Ann", combine=combine, **parts)


def test_several_photos_are_combined_by_the_formula():
    rows = photos(4).numpy().astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1).mean()
    for combine, direction in (("mean", unit.mean(axis=0)), ("median", np.median(unit, axis=0))):
        expected = direction / np.linalg.norm(direction) * length
        found = person(4, combine).embedding([BUFFALO_L], "test")
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_one_photo_comes_back_bit_for_bit():
    for combine in ("mean", "median"):
        one = Identity("Ann", {BUFFALO_L: photos(1)}, {CLIP: hidden(1)}, {CLIP: hidden(1, seed=2)}, combine)
        assert torch.equal(one.embedding([BUFFALO_L], "test"), photos(1)[0])
        assert torch.equal(one.hidden_states(CLIP), hidden(1)[0])


def test_hidden_states_are_combined_element_by_element():
    many = hidden(5).numpy()
    for combine, rule in (("mean", np.mean), ("median", np.median)):
        identity = Identity("Ann", {}, {CLIP: hidden(5)}, {CLIP: hidden(1)}, combine)
        np.testing.assert_allclose(identity.hidden_states(CLIP).numpy(), rule(many, axis=0), atol=1e-6)


@settings(deadline=None)
@given(order=st.permutations(range(5)), scales=arrays(np.float32, 5, elements=st.floats(0.125, 8, width=32)))
def test_neither_the_order_nor_the_length_of_photos_turns_the_embedding(order, scales):
    for combine in ("mean", "median"):
        straight = person(5, combine).embedding([BUFFALO_L], "test")
        rows = (photos(5) * torch.from_numpy(scales)[:, None])[list(order)]
        other = Identity("Ann", {BUFFALO_L: rows}, combine=combine).embedding([BUFFALO_L], "test")
        assert torch.nn.functional.cosine_similarity(straight, other, dim=0) > 1 - 1e-5


def test_the_preferred_recogniser_is_taken():
    both = Identity("Ann", {AURAFACE: photos(2), BUFFALO_L: photos(2, seed=3)})
    assert torch.equal(both.photo_embeddings([BUFFALO_L, AURAFACE], "test"), photos(2, seed=3))
    assert torch.equal(both.photo_embeddings([ANTELOPEV2, AURAFACE], "test"), photos(2))


def test_another_recogniser_s_embeddings_are_refused_by_name():
    with pytest.raises(InvalidInputError) as caught:
        person().embedding([ANTELOPEV2], "InstantID")
    message = str(caught.value)
    assert message.startswith("InstantID needs face embeddings of antelopev2 (glintr100)")
    assert "'Ann' has those of buffalo_l (w600k_r50)" in message


def test_an_identity_without_embeddings_says_it_has_none():
    clip_only = Identity("Ann", {}, {CLIP: hidden(1)}, {CLIP: hidden(1)})
    with pytest.raises(InvalidInputError, match="has those of none"):
        clip_only.photo_embeddings([BUFFALO_L], "FaceID")


def test_unknown_recognisers_are_called_by_their_hash():
    assert recogniser_name("ab" * 32) == "recogniser abababababab"
    assert all(len(key) == 64 and int(key, 16) for key in KNOWN_RECOGNISERS)
    assert len({*KNOWN_RECOGNISERS.values()}) == len(KNOWN_RECOGNISERS) == 4


def test_the_one_clip_model_of_a_width_is_found_and_ambiguity_is_refused():
    states = {"a": hidden(1, width=8), "b": hidden(1, width=8, seed=5), "c": hidden(1, width=4)}
    identity = Identity("Ann", {}, states, states)
    assert identity.clip_model(4, "test") == "c"
    with pytest.raises(InvalidInputError, match=r"holds 2 of them .*a \(8 wide\), b \(8 wide\), c \(4 wide\)"):
        identity.clip_model(8, "test")
    with pytest.raises(InvalidInputError, match="'Ann' holds 0 of them"):
        identity.clip_model(1280, "plus-face")


def test_two_views_of_the_same_photos_become_one_identity():
    faceid = person(2)
    instantid = Identity("other", {ANTELOPEV2: photos(2, 7)}, {CLIP: hidden(2)}, {CLIP: hidden(1)}, "median")
    both = faceid.extended_by(instantid)
    assert (both.name, both.combine, both.num_photos) == ("Ann", "mean", 2)
    assert set(both.embeddings) == {BUFFALO_L, ANTELOPEV2} and set(both.clip_null) == {CLIP}
    assert set(faceid.embeddings) == {BUFFALO_L}
    assert torch.equal(both.extended_by(faceid).embeddings[BUFFALO_L], photos(2))


def test_views_of_other_photos_are_not_joined():
    with pytest.raises(ShapeMismatchError, match="from 2 photos and 'Ann' from 3"):
        person(2).extended_by(person(3))
    with pytest.raises(InvalidInputError, match="different photos"):
        person(2).extended_by(Identity("Bob", {BUFFALO_L: photos(2, seed=9)}))


def test_description_says_who_and_by_what():
    identity = Identity("Ann", {BUFFALO_L: photos(2)}, {CLIP: hidden(2)}, {CLIP: hidden(1)})
    assert identity.description.splitlines() == [
        "Ann: 2 photos, combined by mean",
        "embeddings: buffalo_l (w600k_r50)",
        f"CLIP-Vision: {CLIP}",
    ]
    assert person(1).description.startswith("Ann: 1 photo\n")


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({}, InvalidInputError, "neither a face embedding nor CLIP"),
        ({"embeddings": {BUFFALO_L: photos(1)[0]}}, ShapeMismatchError, r"\(512,\), not \(photos, 512\)"),
        ({"embeddings": {BUFFALO_L: torch.ones(2, 128)}}, ShapeMismatchError, r"\(2, 128\)"),
        ({"embeddings": {BUFFALO_L: torch.ones(0, 512)}}, ShapeMismatchError, r"\(0, 512\)"),
        ({"embeddings": {BUFFALO_L: torch.zeros(1, 512)}}, InvalidInputError, "zero or not finite"),
        ({"embeddings": {BUFFALO_L: photos(1) * torch.nan}}, InvalidInputError, "zero or not finite"),
        ({"embeddings": {BUFFALO_L: photos(1)}, "combine": "best"}, InvalidInputError, "one of mean, median"),
        ({"clip_hidden": {CLIP: hidden(1)}}, InvalidInputError, "both must match"),
        (
            {"clip_hidden": {CLIP: hidden(2)}, "clip_null": {CLIP: hidden(2)}},
            ShapeMismatchError,
            "those of the negative",
        ),
        ({"clip_hidden": {CLIP: hidden(1)}, "clip_null": {CLIP: hidden(1) / 0}}, InvalidInputError, "not finite"),
        (
            {"embeddings": {BUFFALO_L: photos(3)}, "clip_hidden": {CLIP: hidden(2)}, "clip_null": {CLIP: hidden(1)}},
            ShapeMismatchError,
            r"different numbers of photos \(\[2, 3\]\)",
        ),
        ({"embeddings": {BUFFALO_L: photos(3), AURAFACE: photos(2)}}, ShapeMismatchError, "different numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, error, message):
    with pytest.raises(error, match=message):
        Identity("Ann", **parts)


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 4),
    recognisers=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=2, unique=True),
    models=st.lists(st.sampled_from(["clip-8x5-a", "clip-1280x257-b.c"]), min_size=1, unique=True),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    combine=st.sampled_from(["mean", "median"]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
def test_saved_identities_come_back_bit_for_bit(tmp_path_factory, count, recognisers, models, name, combine, dtype):
    saved = Identity(
        name,
        {key: photos(count, seed).to(dtype) for seed, key in enumerate(recognisers)},
        {key: hidden(count, seed=seed).to(dtype) for seed, key in enumerate(models)},
        {key: hidden(1, seed=seed + 9).to(dtype) for seed, key in enumerate(models)},
        combine,
    )
    path = tmp_path_factory.mktemp("identities") / "someone.safetensors"
    save_identity(path, saved)
    loaded = load_identity(path)
    assert (loaded.name, loaded.combine) == (name, combine)
    before, after = identity_tensors(saved), identity_tensors(loaded)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype and torch.equal(tensor, after[key])


def test_the_file_is_as_documented(tmp_path):
    path = tmp_path / "ann.safetensors"
    save_identity(path, Identity("Ann", {BUFFALO_L: photos(2)}, {CLIP: hidden(2)}, {CLIP: hidden(1)}))
    raw = path.read_bytes()  # read by the container's published layout, not by the pack
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert {name: entry["shape"] for name, entry in header.items()} == {
        f"embedding.{BUFFALO_L}": [2, 512],
        f"clip_hidden.{CLIP}": [2, 5, 8],
        f"clip_null.{CLIP}": [1, 5, 8],
    }
    assert metadata.pop("tensors_hash")
    assert metadata == {"format": "fpga-identity", "version": "1", "name": "Ann", "combine": "mean"}


def rewritten(path, change) -> None:
    """Saves an identity, lets `change` spoil its tensors and header, and writes both back."""
    save_identity(path, Identity("Ann", {BUFFALO_L: photos(2)}, {CLIP: hidden(2)}, {CLIP: hidden(1)}))
    tensors, header = read_safetensors(path)
    tensors, header = {name: tensor.clone() for name, tensor in tensors.items()}, dict(header)
    change(tensors, header)
    write_safetensors(path, tensors, header)


def flip_one_number(tensors, header):
    tensors[f"embedding.{BUFFALO_L}"][1, 7] += 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda t, h: h.update(format="fpga-repcontrolnet"),
            UnknownFormatError,
            "is not an identity.*choose another file",
        ),
        (lambda t, h: h.clear(), UnknownFormatError, "the format in its header is 'none'"),
        (lambda t, h: h.update(version="2"), UnknownFormatError, "up to version 1; update the pack"),
        (lambda t, h: h.update(version="first"), UnknownFormatError, "the version in the header of .* is 'first'"),
        (lambda t, h: h.pop("combine"), UnknownFormatError, "does not contain combine"),
        (lambda t, h: h.update(combine="best"), CheckpointKeyError, "one of mean, median"),
        (flip_one_number, CheckpointReadError, "was changed after it was written"),
        (lambda t, h: t.pop(f"clip_null.{CLIP}"), CheckpointReadError, "was changed after it was written"),
        (lambda t, h: t.update({"lora.up": torch.ones(1)}), CheckpointKeyError, "not part of an identity: lora.up"),
    ],
)
def test_files_that_are_not_what_was_saved_are_refused(tmp_path, change, error, message):
    path = tmp_path / "ann.safetensors"
    rewritten(path, change)
    with pytest.raises(error, match=message) as caught:
        load_identity(path)
    assert "ann.safetensors" in str(caught.value)


def test_tensors_that_do_not_fit_are_the_file_s_fault(tmp_path):
    from fpga.fpga_core.checkpoints import hash_state_dict

    tensors = {f"embedding.{BUFFALO_L}": torch.ones(2, 128)}
    header = {"format": "fpga-identity", "version": "1", "name": "Ann", "combine": "mean"}
    write_safetensors(tmp_path / "a.safetensors", tensors, {**header, "tensors_hash": hash_state_dict(tensors)})
    with pytest.raises(CheckpointShapeError, match=r"'a.safetensors'.*\(2, 128\)"):
        load_identity(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5], ids=["empty", "5 bytes", "100 bytes", "half"])
def test_cut_files_are_refused(tmp_path, kept):
    path = tmp_path / "ann.safetensors"
    save_identity(path, person())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointReadError):
        load_identity(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_identity(tmp_path / "missing" / "ann.safetensors", person())
    assert list(tmp_path.iterdir()) == []
