"""The development tools never take unfinished work for finished, and leave no process behind."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fpga.devtools import comfyui, environment
from fpga.devtools.client import failure, refusal
from fpga.devtools.progress import Progress, StepError

ROOT = Path(__file__).resolve().parents[2]
WORKSHOP = ROOT / "devtools"


@pytest.fixture
def builder(tmp_path):
    return environment.Builder(tmp_path, tmp_path / "ComfyUI", is_given=False)


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def test_only_the_vendored_folder_is_unpacked(tmp_path):
    source = archive(tmp_path / "a.tar.gz", "p-1/setup.py", "p-1/vendor/ComfyUI/main.py", "p-1/vendor/ComfyUI/a/b.py")
    comfyui.unpack_folder(source, "vendor/ComfyUI", tmp_path / "out")
    files = sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.py"))
    assert files == ["a/b.py", "main.py"]


def test_an_archive_that_leads_outside_is_refused(tmp_path):
    source = archive(tmp_path / "a.tar.gz", "p-1/vendor/ComfyUI/../../../evil.py")
    with pytest.raises(StepError, match="leads outside"):
        comfyui.unpack_folder(source, "vendor/ComfyUI", tmp_path / "out")
    assert not list(tmp_path.rglob("evil.py"))


def test_an_archive_without_comfyui_is_refused(tmp_path):
    with pytest.raises(StepError, match=r"no vendor/ComfyUI/main\.py"):
        comfyui.unpack_folder(archive(tmp_path / "a.tar.gz", "p-1/setup.py"), "vendor/ComfyUI", tmp_path / "out")


def test_a_wrong_comfyui_path_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(StepError, match=r"has no main\.py"):
        comfyui.given_comfyui()


def test_the_environment_is_named_after_what_it_is_built_from(tmp_path, monkeypatch):
    def folder() -> str:
        return environment.Builder(tmp_path, given, is_given=True).folder.name

    given = tmp_path / "ComfyUI"
    given.mkdir()
    (given / "requirements.txt").write_text("torch\n")
    first = folder()
    assert folder() == first
    (given / "requirements.txt").write_text("torch\nnumpy\n")
    second = folder()
    assert second != first
    monkeypatch.setattr(sys, "version", "another Python")
    assert folder() not in (first, second)


def test_half_installed_packages_are_forgotten(builder):
    """pip writes INSTALLER last. A package without it was interrupted, but pip would count it as installed."""
    packages = builder.venv / "lib" / "python3" / "site-packages"
    for name, is_whole in (("whole-1.dist-info", True), ("half-2.dist-info", False)):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
        if is_whole:
            (packages / name / "INSTALLER").touch()
    builder._discard_half_installed()
    assert [folder.name for folder in packages.iterdir()] == ["whole-1.dist-info"]


def test_pip_writes_installer_after_a_packages_own_files():
    """Checks the assumption of the test above on the packages that pip has installed here."""
    import pytest as installed

    package = Path(installed.__file__).parent
    (info,) = package.parent.glob("pytest-*.dist-info")
    own = [package / "__init__.py", info / "METADATA", info / "WHEEL"]
    assert all((info / "INSTALLER").stat().st_ctime_ns >= file.stat().st_ctime_ns for file in own)


def test_a_failed_step_says_what_failed_why_and_what_to_do(tmp_path):
    progress = Progress(tmp_path / "log.txt")
    script = "print('ERROR: no space left'); print('more'); raise SystemExit(3)"
    with pytest.raises(StepError) as error:
        progress.run([sys.executable, "-c", script], what="installing", remedy="free some space")
    message = str(error.value)
    assert message == (
        f"installing failed (exit status 3): ERROR: no space left; free some space; log: {tmp_path / 'log.txt'}"
    )
    assert "more" in (tmp_path / "log.txt").read_text()


def test_an_unknown_command_is_named():
    command = [sys.executable, str(ROOT / "dev.py"), "tset"]
    reply = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert reply.returncode == 1
    assert reply.stderr.startswith("dev.py has no command 'tset'; choose one of test, ")


def test_a_tethered_process_ends_with_its_starter(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text("import time\nprint('up', flush=True)\nwhile True:\n    time.sleep(0.1)\n")
    command = [sys.executable, str(WORKSHOP / "tethered.py"), str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"up"
        process.stdin.close()  # as the operating system does for a starter that was killed
        assert process.wait(timeout=30) == 0


def test_a_lock_outlives_nobody_and_keeps_others_waiting(tmp_path):
    code = f"""
import runpy, sys, pathlib
runpy.run_path({str(WORKSHOP / "launch.py")!r})["register_pack"]()
from fpga.devtools.lock import exclusive
with exclusive(pathlib.Path({str(tmp_path / "lock")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start() as first:
        assert first.stdout.readline() == "held\n"
        with start() as second:
            assert "waiting for another" in second.stdout.readline()
            first.kill()
            assert second.stdout.readline() == "held\n"
            second.stdin.close()
            assert second.wait(timeout=30) == 0


def test_the_servers_refusals_and_failures_are_passed_on():
    error = {"message": "Value 0 smaller than min of 1", "details": "steps"}
    reply = {
        "error": {"message": "Prompt outputs failed validation", "details": ""},
        "node_errors": {"7": {"class_type": "KSampler", "errors": [error]}},
    }
    assert "node 7 KSampler: Value 0 smaller than min of 1: steps" in refusal(json.dumps(reply))
    assert refusal("Bad gateway") == "Bad gateway"
    data = {"node_id": "7", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "no model"}
    assert failure({"type": "execution_error", "data": data}).startswith("node 7 KSampler: ValueError: no model")
    assert failure({"type": "execution_interrupted", "data": data}) == "node 7 KSampler: interrupted"


def test_an_edit_of_the_build_s_own_text_keeps_the_environment(tmp_path, monkeypatch):
    def name() -> str:
        return environment.Builder(tmp_path, tmp_path, is_given=False).folder.name

    named, other_text = name(), tmp_path / "environment.py"
    other_text.write_text("# another comment\n", encoding="utf-8")
    monkeypatch.setattr(environment, "__file__", str(other_text))
    assert name() == named, "an edit of the build's own text would install 3 GB again"
    monkeypatch.setattr(environment, "TORCH", "torch==0.0")
    assert name() != named
