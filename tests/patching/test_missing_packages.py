"""A missing package takes down what needs it, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fpga.fpga_core.errors import MissingPackageError
from fpga.fpga_core.packages import importing
from fpga.nodes import NODES

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "without_packages.py"


def test_the_nodes_load_and_those_that_need_a_missing_package_name_it():
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["num_nodes"] == len(NODES)
    outcomes = found["outcomes"]
    assert outcomes.pop("Draw Landmarks") == "ran"
    needed = {
        "Detect Faces": "opencv-python-headless",
        "an assignment": "scipy",
        "a face analysis": "--force-reinstall --no-deps onnxruntime",
    }
    assert outcomes.keys() == needed.keys()
    for name, package in needed.items():
        assert outcomes[name].startswith("MissingPackageError: "), outcomes[name]
        assert outcomes[name].endswith(f"-m pip install {package}"), outcomes[name]
        assert ("run install.py of the pack, or this command" in outcomes[name]) == (name != "an assignment")


def test_what_the_block_imports_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    with (
        pytest.raises(MissingPackageError, match="^insightface cannot be imported") as caught,
        importing("insightface", install='"insightface>=2.0"'),
    ):
        import insightface  # noqa: F401
    assert str(caught.value).endswith(f'"{sys.executable}" -m pip install "insightface>=2.0"')


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), importing("opencv-python"):
        _ = 1 / 0
