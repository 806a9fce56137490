"""Weights files: what is written is read back, what is damaged is named, and the hash is the documented one."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch
from fpga.fpga_core.checkpoints import (
    check_keys,
    check_shapes,
    hash_state_dict,
    is_safetensors,
    list_names,
    read_safetensors,
    write_safetensors,
)
from fpga.fpga_core.errors import CheckpointError, CheckpointKeyError, CheckpointReadError, CheckpointShapeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


def some_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"layer.{dtype}": torch.randn(2, 3, generator=generator).to(dtype) for dtype in DTYPES}
    return tensors | {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), "é": torch.ones(1)}


def hash_of_file(path: Path) -> str:
    """The documented hash, from the bytes of a safetensors file alone."""
    data = path.read_bytes()
    (header_size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + header_size]), data[8 + header_size :]
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name in sorted(header):
        start, end = header[name]["data_offsets"]
        line = json.dumps([name, TORCH_NAMES[header[name]["dtype"]], header[name]["shape"]], separators=(",", ":"))
        digest.update(line.encode() + b"\n" + body[start:end])
    return digest.hexdigest()


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and torch.equal(first[name].reshape(-1).view(torch.uint8), second[name].reshape(-1).view(torch.uint8))
        for name in first
    )


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = some_tensors()
    write_safetensors(path, tensors, {"format": "test", "note": "größer"})
    read, metadata = read_safetensors(path)
    assert same_bits(read, tensors)
    assert metadata == {"format": "test", "note": "größer"}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_tensors_that_share_memory_or_are_strided_are_written_as_they_read(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {"whole": whole, "same": whole, "part": whole[1:3], "transposed": whole.T, "every_second": whole[:, ::2]}
    tensors["single"] = torch.tensor([1.0, 2.0]).bfloat16()[::2]
    write_safetensors(tmp_path / "shared", tensors, {})
    read, _ = read_safetensors(str(tmp_path / "shared"))
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_failed_write_leaves_the_folder_as_it_was(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_safetensors(tmp_path / "no_such_folder" / "a.safetensors", some_tensors(), {})
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_safetensors(occupied, some_tensors(), {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["occupied"]


def test_an_old_file_in_use_survives_its_replacement(tmp_path):
    path = tmp_path / "weights"
    write_safetensors(path, {"a": torch.zeros(1000)}, {})
    old, _ = read_safetensors(path)
    write_safetensors(path, {"a": torch.ones(1000)}, {})
    assert old["a"].sum() == 0 and read_safetensors(path)[0]["a"].sum() == 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x00", "truncated or not a safetensors file"),
        (b"<html>404 Not Found</html>" * 100, "truncated or not a safetensors file"),
        (b"PK\x03\x04" + bytes(1000), "truncated or not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "truncated or not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_named(tmp_path, content, message):
    path = tmp_path / "pose.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointReadError, match=message) as caught:
        read_safetensors(path)
    assert "'pose.safetensors'" in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointReadError, match=path.name):
            read_safetensors(path)


def test_a_file_cut_off_at_any_byte_is_named(tmp_path):
    path = tmp_path / "weights"
    write_safetensors(path, {"a": torch.ones(5), "b": torch.ones(3, 2)}, {"format": "test"})
    data = path.read_bytes()
    for num_bytes in range(len(data)):
        path.write_bytes(data[:num_bytes])
        with pytest.raises(CheckpointReadError):
            read_safetensors(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_a_flipped_byte_in_the_header_is_named_or_reads(tmp_path, position, mask):
    path = tmp_path / "weights"
    write_safetensors(path, some_tensors(), {"format": "test"})
    data = bytearray(path.read_bytes())
    data[position % (8 + struct.unpack("<Q", data[:8])[0])] ^= mask
    path.write_bytes(data)
    try:
        tensors, _ = read_safetensors(path)
    except CheckpointReadError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_the_hash_is_the_documented_one(tmp_path):
    tensors = some_tensors()
    write_safetensors(tmp_path / "weights", tensors, {"format": "does not count"})
    assert hash_state_dict(tensors) == hash_of_file(tmp_path / "weights")


def test_the_hash_does_not_change_between_versions():
    """Files name branches by it: these are digests of the documented text, which never change."""
    digest = "f32ee81499fcae4791453f78ae361aefadd9cec5c26810354f5cc071d4b3acec"
    assert hashlib.sha256(b'["a","float32",[2]]\n\0\0\x80\x3f\0\0\0\xc0').hexdigest() == digest
    assert hash_state_dict({"a": torch.tensor([1.0, -2.0])}) == digest
    assert digest in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert hash_state_dict({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_hash_ignores_order_and_memory_layout():
    tensors = some_tensors()
    reordered = dict(reversed(tensors.items()))
    strided = {
        name: tensor.repeat_interleave(2, -1)[..., ::2] if tensor.ndim else tensor for name, tensor in tensors.items()
    }
    assert hash_state_dict(tensors) == hash_state_dict(reordered) == hash_state_dict(strided)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors | {"scalar": torch.tensor(1.5000001)},
        lambda tensors: tensors | {"scalar": torch.tensor([1.5])},
        lambda tensors: tensors | {"scalar": torch.tensor(1.5, dtype=torch.float64)},
        lambda tensors: tensors | {"more": torch.zeros(0)},
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "empty"},
        lambda tensors: {("Scalar" if name == "scalar" else name): tensor for name, tensor in tensors.items()},
        lambda tensors: tensors | {"empty": torch.zeros(4, 0)},
    ],
)
def test_the_hash_tells_any_change(change):
    tensors = some_tensors()
    assert hash_state_dict(change(dict(tensors))) != hash_state_dict(tensors)


def test_missing_and_extra_tensors_are_listed_five_at_most():
    expected = [f"layer.{number}" for number in range(12)]
    with pytest.raises(CheckpointKeyError) as caught:
        check_keys("pose", [*expected[:3], "stranger"], expected)
    message = str(caught.value)
    assert "9 missing" in message and "and 4 more" in message and "1 that do not belong (stranger)" in message
    assert message.count("layer.") == 5
    check_keys("pose", reversed(expected), expected)


def test_the_wrong_shape_is_given():
    expected = {"a": torch.Size([2, 3]), "b": torch.Size([4])}
    with pytest.raises(
        CheckpointShapeError, match=r"'a' in 'pose' is \(3, 2\), but the model needs \(2, 3\) \(and 1 more"
    ):
        check_shapes("pose", {"a": torch.zeros(3, 2), "b": torch.zeros(5)}, expected)
    check_shapes("pose", {"a": torch.zeros(2, 3)}, expected)


def test_names_are_listed_sorted():
    assert list_names("bca") == "a, b, c"
    assert list_names("gfedcba") == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize("name", ["w.safetensors", "W.SAFETENSORS", "w.sft", "w.bin", "w"])
def test_safetensors_are_recognised_whatever_they_are_called(tmp_path, name):
    write_safetensors(tmp_path / name, some_tensors(), {})
    assert is_safetensors(tmp_path / name)


def test_other_files_are_no_safetensors(tmp_path):
    for number, content in enumerate((b"", b"short", b"PK\x03\x04 {zip}", b"x" * 8 + b"{", bytes(8) + b"[")):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        assert not is_safetensors(path)
    torch.save(some_tensors(), tmp_path / "saved.pt")
    torch.save(some_tensors(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert not is_safetensors(tmp_path / "saved.pt") and not is_safetensors(tmp_path / "old.pt")
