"""The pack as pip installs it: what the package holds, the README's example, and the console command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fpga import __version__

ROOT = Path(__file__).resolve().parents[2]
FILES = ("__init__.py", "__main__.py", "py.typed")
ROOMS = ("commands", "fpga_core", "nodes", "web", "locales", "subgraphs", "workflows")
WORKSHOP = ("dev.py", "devtools", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed the pack alone. What it depends on is in the tests' environment."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "source").mkdir()  # a copy, because setuptools writes beside what it builds
    for name in (*FILES, *ROOMS, *WORKSHOP):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--target", folder / "site", folder / "source"]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert reply.returncode == 0, reply.stdout + reply.stderr
    return folder / "site"


def run(site: Path, *command) -> subprocess.CompletedProcess:
    """Runs a program that finds the installed pack, and no ComfyUI."""
    variables = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    variables["PYTHONPATH"] = os.fspath(site)
    return subprocess.run(command, env=variables, cwd=site, capture_output=True, text=True, timeout=280)


def test_the_package_is_the_pack_without_its_workshop(site):
    expected = {*FILES, *(f"{room}/{path}" for room in ROOMS for path in files_in(ROOT / room))}
    assert files_in(site / "fpga_portrait") == expected


def files_in(folder: Path) -> set[str]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {file.relative_to(folder).as_posix() for file in files}


def test_the_readmes_example_runs(site):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    reply = run(site, sys.executable, "-c", example + "import sys\nassert 'comfy' not in sys.modules\n")
    assert reply.returncode == 0, reply.stderr


def test_the_command_is_installed(site):
    (program,) = (site / "bin").glob("fpga-portrait*")
    for command in ([program], [sys.executable, "-m", "fpga_portrait"]):
        reply = run(site, *command, "--version")
        assert (reply.returncode, reply.stdout) == (0, f"fpga-portrait {__version__}\n"), reply.stderr
