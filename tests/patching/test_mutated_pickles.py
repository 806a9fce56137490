"""200 damaged pickles for the loader of weights that other programs wrote."""

import folder_paths
import pytest
import torch
from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
from fpga.nodes.files import load_weights
from mutations import check_named_errors_only, mutated
from random_adapters import faceid


@pytest.mark.parametrize("is_zipped", [True, False], ids=["zip", "pickle"])
def test_bin_files(tmp_path, monkeypatch, is_zipped):
    endings = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "fpga", ([str(tmp_path)], endings))
    path = tmp_path / "adapter.bin"
    torch.save(faceid("tiny", lora_rank=1), path, _use_new_zipfile_serialization=is_zipped)

    def load(content: bytes) -> None:
        path.write_bytes(content)
        weights, metadata = load_weights("fpga", "adapter.bin")
        read_identity_adapter(weights, metadata, "adapter.bin")

    check_named_errors_only(load, mutated(path.read_bytes()))
