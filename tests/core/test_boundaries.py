"""Whatever a library raises becomes a named error, and a file is written whole or not at all."""

import os
import stat

import fpga.fpga_core.errors as errors
import pytest
import torch
from fpga.fpga_core.boundaries import guarded, shortened, written_whole
from fpga.fpga_core.checkpoints import FileFormat, list_names, write_safetensors
from fpga.fpga_core.errors import CheckpointError, FPGAError, InvalidInputError, UnknownFormatError
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.faces.likeness import Portrait
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.identity import Identity

ALL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize(
    "error", [ValueError("bad\nsecond line"), KeyError(), SystemError(), AssertionError(), MemoryError()]
)
def test_every_error_of_a_library_becomes_ours_with_the_remedy_before_its_words(error):
    with pytest.raises(CheckpointError) as caught, guarded(CheckpointError, "'a.pt' is odd", advice="get another"):
        raise error
    assert str(caught.value) in (
        "'a.pt' is odd; get another (bad)",
        f"'a.pt' is odd; get another ({type(error).__name__})",
    )
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [InvalidInputError("x"), torch.OutOfMemoryError("x"), KeyboardInterrupt()])
def test_our_own_errors_a_full_gpu_and_cancel_pass(error):
    with pytest.raises(type(error)) as caught, guarded(CheckpointError, "x", advice="y"):
        raise error
    assert caught.value is error


def test_what_is_repeated_is_one_short_line():
    assert shortened("a\n b\tc") == "a b c"
    assert len(shortened("x" * 10**6)) < 250 and shortened("x" * 10**6).endswith("(1,000,000 characters)")
    long = FileFormat(name="mine", version=1, kind="one of mine", entries=())
    for header in ({"format": "x" * 10**6}, {"format": "mine", "version": "9" * 10**6}):
        with pytest.raises(UnknownFormatError) as caught:
            long.check_header("a.safetensors", header)
        assert len(str(caught.value)) < 400
    assert len(list_names(["n" * 10**6, "a"])) < 300


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_comfyui_shows_the_name_of_an_error_without_the_path_of_the_pack(kind):
    """ComfyUI's `full_type_name` joins both; in ComfyUI, this pack's modules have its folder as their name."""
    assert f"{kind.__module__}.{kind.__qualname__}" == f"fpga_portrait.{kind.__name__}"
    assert kind is FPGAError or issubclass(kind, FPGAError)


def test_errors_of_comfyui_that_show_the_inputs_show_no_embedding():
    """ComfyUI sends `str` of every input of a node that fails to the browser."""
    embedding = torch.full((1, 512), 0.123456)
    identity = Identity("Ada", {"ab" * 32: embedding})
    face = Face(Box(0, 0, 9, 9), embeddings={"ab": embedding[0].numpy()})
    for value in (identity, [identity], face, (face,), Portrait("Ada", embedding[0].numpy())):
        assert "0.1234" not in str(value)
    assert "Ada" in str(identity)


def test_a_file_is_written_beside_and_moved_with_the_permissions_of_any_new_file(tmp_path):
    path, plain = tmp_path / "a.safetensors", tmp_path / "plain"
    mask = os.umask(0o027)
    try:
        plain.write_bytes(b"")
        write_safetensors(path, {"a": torch.ones(2)}, {})
        with written_whole(tmp_path / "b.bin", CheckpointError) as partial:
            partial.write_bytes(b"new")
            assert not (tmp_path / "b.bin").exists()
    finally:
        os.umask(mask)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)} and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64"), KeyboardInterrupt()]
)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises((CheckpointError, KeyboardInterrupt)), written_whole(path, CheckpointError) as partial:
        partial.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
