"""The console command `fpga-portrait`: it lists its commands, reports errors, and works without dev.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fpga import __version__, commands
from fpga.commands.comfyui import comfyui_folder
from fpga.fpga_core.errors import InvalidInputError, MissingPackageError

ROOT = Path(__file__).resolve().parents[2]
HELP_ALONE = f"""
import runpy, sys
try:
    runpy.run_path({str(ROOT)!r}, run_name="__main__")
except SystemExit:
    sys.exit(", ".join({{"torch", "numpy", "comfy"}} & sys.modules.keys()) or 0)
"""


@pytest.fixture
def comfyui(tmp_path):
    """The skeleton of a ComfyUI with the pack linked into its custom_nodes."""
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "sd.py").touch()
    (tmp_path / "custom_nodes").mkdir()
    pack = tmp_path / "custom_nodes" / "a pack-of.any name"
    try:
        pack.symlink_to(ROOT, target_is_directory=True)
    except OSError:
        pytest.skip("this system does not let its users make links")
    return tmp_path


def test_help_and_version(capsys):
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert commands.main(arguments) == 0
        printed = capsys.readouterr().out
        assert all(f"  {name}  " in printed for name in commands.SUBCOMMANDS)
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fpga-portrait {__version__}\n"


@pytest.mark.parametrize("name", commands.SUBCOMMANDS)
def test_every_subcommand_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: fpga-portrait {name} " in capsys.readouterr().out


def test_a_wrong_word_is_named(capsys):
    assert commands.main(["tarin"]) == 2
    choices = ", ".join(commands.SUBCOMMANDS)
    assert capsys.readouterr().err == f"fpga-portrait has no command 'tarin'; choose one of {choices}\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InvalidInputError("too small"), 1, "too small"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_a_line_and_an_exit_status(error, status, message, monkeypatch, capsys):
    def fail(arguments):
        raise error

    monkeypatch.setattr("fpga.commands.train.main", fail)
    assert commands.main(["train"]) == status
    assert capsys.readouterr().err == f"fpga-portrait train: {message}\n"


def test_it_runs_from_the_packs_folder_in_a_comfyui(comfyui):
    """Users of ComfyUI's Manager do this: run it from ComfyUI's folder, without installing anything."""
    command = [sys.executable, next((comfyui / "custom_nodes").iterdir()), "--version"]
    reply = subprocess.run(command, capture_output=True, text=True, cwd=comfyui, timeout=60)
    assert (reply.returncode, reply.stdout, reply.stderr) == (0, f"fpga-portrait {__version__}\n", "")


def test_help_needs_no_other_package():
    reply = subprocess.run([sys.executable, "-c", HELP_ALONE], capture_output=True, text=True, timeout=60)
    assert (reply.returncode, reply.stderr) == (0, "")
    assert reply.stdout.startswith("usage: fpga-portrait COMMAND")


def test_comfyui_is_where_the_pack_is(comfyui, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    (pack,) = (comfyui / "custom_nodes").iterdir()
    assert comfyui_folder(pack) == comfyui


def test_the_named_comfyui_wins(comfyui, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", os.fspath(comfyui))
    assert comfyui_folder(ROOT) == comfyui


def test_a_missing_comfyui_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", os.fspath(tmp_path))
    with pytest.raises(MissingPackageError, match=r"COMFYUI_PATH is .* not a ComfyUI folder"):
        comfyui_folder(tmp_path)
    monkeypatch.delenv("COMFYUI_PATH")
    for pack in (tmp_path / "pack", tmp_path / "custom_nodes" / "pack"):
        with pytest.raises(MissingPackageError, match="set COMFYUI_PATH to ComfyUI's folder"):
            comfyui_folder(pack)
