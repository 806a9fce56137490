"""The node that loads adapters, called in this process with real files in a real model folder."""

import os
import pickle
from pathlib import Path

import folder_paths
import huggingface_hub
import pytest
import torch
from fpga.fpga_core.errors import CheckpointReadError, DownloadError
from fpga.fpga_core.identity.export import write_fpga_adapter
from fpga.fpga_core.identity.recipes import AdapterKind
from fpga.nodes.identity_adapter import FOLDER, LoadIdentityAdapter, adapter_names
from random_adapters import faceid_plus, flat, fpga_adapter
from safetensors.torch import save_file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], folder_paths.supported_pt_extensions)
    )
    return tmp_path


def test_files_of_every_kind_are_loaded(folder):
    file = faceid_plus("sd15", lora_rank=1, dtype=torch.float16)
    torch.save(file, folder / "a.bin")
    torch.save({"state_dict": file}, folder / "b.ckpt")
    save_file(flat(file), folder / "c.safetensors")
    write_fpga_adapter(fpga_adapter("sd15"), folder / "d.safetensors")
    (folder / "notes.txt").write_text("not a weights file")
    assert folder_paths.get_filename_list(FOLDER) == ["a.bin", "b.ckpt", "c.safetensors", "d.safetensors"]
    for name in ("a.bin", "b.ckpt", "c.safetensors"):
        (adapter,) = LoadIdentityAdapter.execute(name, "plus_v1", use_lora=False, structure_strength=0.5).result
        assert adapter.kind is AdapterKind.FACEID_PLUS
        assert (adapter.name, adapter.lora, adapter.structure_strength) == (name, None, 0.5)
        assert len(adapter.projections) == 16
    assert LoadIdentityAdapter.execute("d.safetensors").result[0].kind is AdapterKind.FPGA


def test_the_node_says_what_it_found(folder):
    write_fpga_adapter(fpga_adapter("sd15", clip_model="ViT-H"), folder / "d.safetensors")
    shown = LoadIdentityAdapter.execute("d.safetensors").ui.as_dict()["text"][0]
    assert shown == "FPGA for sd15 (4 tokens; needs buffalo_l (w600k_r50) and ViT-H)"


def test_a_public_adapter_is_downloaded_if_it_is_missing(folder, monkeypatch):
    """The hub is not reached: the function that fetches a file is replaced by one that puts it where the hub would."""
    asked = []

    def fetch(repository: str, path: str, *, local_dir: Path, token: bool) -> str:
        asked.append((repository, path, token))
        place = local_dir / path
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file(flat(faceid_plus("sd15", dtype=torch.float16)), place)
        return str(place)

    name = "ip-adapter-plus-face_sd15.safetensors"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "ipadapter", ([str(folder)], folder_paths.supported_pt_extensions)
    )
    assert name in adapter_names()
    assert LoadIdentityAdapter.fingerprint_inputs(name) == 0
    with pytest.raises(CheckpointReadError, match="turn on download_if_missing, or put it there"):
        LoadIdentityAdapter.execute(name)
    LoadIdentityAdapter.execute(name, "plus_v1", download_if_missing=True)
    LoadIdentityAdapter.execute(name, "plus_v1", download_if_missing=True)
    assert asked == [("h94/IP-Adapter", f"models/{name}", False)]
    assert (folder / name).is_file() and adapter_names().count(name) == 1


def test_a_download_that_fails_says_what_to_do(folder, monkeypatch):
    def fetch(*_, **__) -> str:
        raise OSError("no route to the host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(DownloadError, match=r"h94/IP-Adapter-FaceID.*check the connection.*no route to the host"):
        LoadIdentityAdapter.execute("ip-adapter-faceid_sdxl.bin", download_if_missing=True)
    with pytest.raises(DownloadError, match=r"'mine.bin' cannot be downloaded; put it into"):
        LoadIdentityAdapter.execute("mine.bin", download_if_missing=True)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "cannot be read"),
        (b"<html>404: not found</html>" * 20, "not a weights file"),
        (pickle.dumps(Harmful()), "can be harmful"),
        (pickle.dumps([1, 2]), "not a weights file"),
    ],
    ids=["empty", "a web page", "harmful", "a list"],
)
@pytest.mark.parametrize("name", ["adapter.bin", "adapter.safetensors"])
def test_what_is_no_weights_file_is_refused(folder, name, contents, message):
    (folder / name).write_bytes(contents)
    with pytest.raises(CheckpointReadError, match=message if name.endswith(".bin") else "download it again"):
        LoadIdentityAdapter.execute(name)


def test_a_truncated_file_is_refused(folder):
    torch.save(faceid_plus("tiny"), folder / "adapter.bin")
    whole = (folder / "adapter.bin").read_bytes()
    (folder / "adapter.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointReadError, match="cannot be read.*download it again"):
        LoadIdentityAdapter.execute("adapter.bin")


def test_a_replaced_file_is_loaded_again(folder):

    write_fpga_adapter(fpga_adapter("sd15"), folder / "d.safetensors")
    before = LoadIdentityAdapter.fingerprint_inputs("d.safetensors")
    os.utime(folder / "d.safetensors", (1, 1))
    assert LoadIdentityAdapter.fingerprint_inputs("d.safetensors") != before
