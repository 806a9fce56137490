"""200 damaged ONNX files for each loader that runs them, and damaged config files of the command line."""

import json
import shutil

import pytest
from fpga.commands.train_options import read_config
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.faces.onnx_runtimes import Provider
from fpga.fpga_core.faces.parsing import load_face_parser
from fpga.laboratory.shipped import FACE_PACK
from mutations import check_named_errors_only, mutated
from onnx_parser import write_network


def test_face_parsers(tmp_path):
    path = tmp_path / "parser.onnx"
    write_network(path)

    def load(content: bytes) -> None:
        path.write_bytes(content)
        load_face_parser(path, Provider.CPU)

    check_named_errors_only(load, mutated(path.read_bytes()))


def test_face_analysis_packs(tmp_path):
    shutil.copytree(FACE_PACK, tmp_path / "pack")
    path = tmp_path / "pack" / "det_world.onnx"

    def load(content: bytes) -> None:
        path.write_bytes(content)
        load_insightface_pack(tmp_path / "pack", Provider.CPU)

    check_named_errors_only(load, mutated(path.read_bytes()))


@pytest.mark.parametrize("ending", ["json", "toml"])
def test_config_files(tmp_path, ending):
    options = {"batch-size": 4, "learning_rate": 0.5, "gradient-checkpointing": True, "data": "some/folder"}
    text = json.dumps(options) if ending == "json" else "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    path = tmp_path / f"training.{ending}"

    def load(content: bytes) -> None:
        path.write_bytes(content)
        read_config(path)

    check_named_errors_only(load, mutated(text.encode()))
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_config(path) == options
