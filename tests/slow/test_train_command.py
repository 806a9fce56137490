"""`fpga-portrait train` as a program: on a small checkpoint that ComfyUI's stock loader reads, stopped and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fpga.devtools.stand_ins import PACKS, small_checkpoint
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from fpga.fpga_core.training.data.writing import write_header
from fpga.fpga_core.training.engine.loss_log import FILE, read_losses
from PIL import Image
from training_samples import write_samples

pytestmark = pytest.mark.comfyui

PACK = Path(__file__).resolve().parents[2]


def command(*words) -> list[str]:
    return [sys.executable, str(PACK), "train", *map(str, words)]


def test_a_training_is_stopped_gone_on_with_and_gives_its_files(tmp_path):
    small_checkpoint(tmp_path / "small.safetensors")
    write_samples(tmp_path / "data", 3)
    write_header(tmp_path / "data", recogniser=BUFFALO_L)
    config = {"landmarks": 1, "skeleton": 1, "both": 4, "clone-every": 2, "with-identity": True, "sample-every": 6}
    (tmp_path / "training.json").write_text(json.dumps(config))
    words = command(
        "repcontrolnet",
        "--config",
        tmp_path / "training.json",
        "--checkpoint",
        tmp_path / "small.safetensors",
        "--custom-node",
        next(iter(PACKS.values())),
        "--data",
        tmp_path / "data",
        "--output",
        tmp_path / "out",
        "--cpu",
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "out" / FILE
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=250)
    assert process.returncode == 130, errors
    assert "run the command again to continue" in printed
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    losses = read_losses(log)
    assert [line["iteration"] for line in losses] == list(range(6))
    assert [line["iteration"] for line in losses if "l_cfa" in line] == [3, 5]
    with Image.open(tmp_path / "out" / "samples" / "00000006.png") as samples:
        assert samples.size == (3 * 64, 3 * 64)
    branch = read_repcontrolnet(*read_safetensors(tmp_path / "out" / "repcontrolnet.safetensors"), name="branch")
    adapter = read_identity_adapter(*read_safetensors(tmp_path / "out" / "identity_adapter.safetensors"), name="face")
    assert adapter.branch_hash == branch.header.branch_hash
    assert branch.header.trained_on == "data: 3 samples, 6 iterations"
