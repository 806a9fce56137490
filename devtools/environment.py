"""The virtual environment of tests, benches and the demo, which is built once and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import comfyui
from .lock import exclusive
from .progress import Progress

ROOT = Path(__file__).resolve().parent.parent
WORKSHOP = ROOT / "devtools"
CONSTRAINTS = WORKSHOP / "constraints.txt"
TESTED_PYTHONS = ((3, 11),)  # the Python that constraints.txt was frozen with
TORCH = "torch==2.13.0"  # the same on every Python, because torchvision and torchaudio must match it
BUILD = 1
"""The number of the build's recipe. Raise it if the steps install something else from the same files."""

NETWORK_REMEDY = "check the network and pip's configuration, and run again to resume with this step"


@dataclass(frozen=True)
class Environment:
    """The environment in which the programs run.

    Attributes:
        python: the interpreter that has everything installed.
        comfyui: the folder of ComfyUI's main.py.
        variables: the environment variables that they need.
    """

    python: Path
    comfyui: Path
    variables: dict[str, str]


@dataclass(frozen=True)
class Step:
    """One step of the build. It is done if its stamp exists."""

    title: str
    stamp: Path
    action: Callable[[], None]

    def run(self) -> None:
        self.action()
        self.stamp.touch()


def cache_folder() -> Path:
    """Returns the folder for everything that is built, by the platform's convention."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fpga-portrait"


def prepare() -> Environment:
    """Builds what is missing from the cache, and returns the environment.

    Raises:
        StepError: a step failed; the next run resumes with it.
    """
    given = comfyui.given_comfyui()
    return Builder(cache_folder(), given or comfyui.cached_comfyui(cache_folder()), is_given=given is not None).build()


class Builder:
    """Builds one environment, whose name depends on everything that it is built from."""

    def __init__(self, cache: Path, comfyui_folder: Path, is_given: bool):
        self.cache = cache
        self.comfyui = comfyui_folder
        self.is_given = is_given
        self.is_tested = sys.version_info[:2] in TESTED_PYTHONS
        self.folder = cache / f"python-{self._key(comfyui_folder if is_given else None)}"
        self.venv = self.folder / "venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.pip: list[str | Path] = [self.python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        self.cpu_torch_stamp = self.folder / "cpu-torch"

    def build(self) -> Environment:
        with exclusive(self.folder / "lock") as held:
            progress = Progress(self.folder / "log.txt", held_files=[held] if os.name == "posix" else [])
            steps = self._steps(progress)
            missing = [step for step in steps if not step.stamp.exists()]
            if missing:
                print(f"preparing the environment in {self.cache} (only once; about 3 GB, a few minutes)", flush=True)
            if missing and not self.is_tested:
                tested = ", ".join(f"{major}.{minor}" for major, minor in TESTED_PYTHONS)
                running = platform.python_version()
                print(
                    f"Python {running} was not tested ({tested} was), so the newest packages are installed", flush=True
                )
            for step in missing:
                progress.step(f"[{steps.index(step) + 1}/{len(steps)}] {step.title}", step.run)
        variables = {**os.environ, "COMFYUI_PATH": str(self.comfyui)}
        if self.cpu_torch_stamp.exists():
            variables = with_cpu_torch(variables)
        return Environment(self.python, self.comfyui, variables)

    def _steps(self, progress: Progress) -> list[Step]:
        def step(title: str, action: Callable[[Progress], None], stamp: Path | None = None) -> Step:
            return Step(title, stamp or self.folder / f"{action.__name__.strip('_')}.done", lambda: action(progress))

        return [
            step("virtual environment", self._create_venv),
            step("ComfyUI", self._get_comfyui, stamp=self.comfyui / "main.py"),
            step("torch", self._install_torch),
            step("packages of ComfyUI, the pack and its tests", self._install_requirements),
            step("checking that they load", self._cure),
        ]

    def _create_venv(self, progress: Progress) -> None:
        progress.run(
            [sys.executable, "-m", "venv", "--clear", self.venv],
            what="creating a virtual environment",
            remedy="install Python's venv module (Debian: apt-get install python3-venv) and run again",
        )

    def _get_comfyui(self, progress: Progress) -> None:
        with exclusive(self.cache / "comfyui.lock"):
            if not self.comfyui.exists():
                comfyui.fetch(self.cache, self.pip, progress)

    def _install_torch(self, progress: Progress) -> None:
        without_dependencies: list[str | Path] = ["--no-deps", "-r", WORKSHOP / "requirements-no-deps.txt"]
        self._pip_install([TORCH], "installing torch", progress)
        self._pip_install(without_dependencies, "installing torchvision", progress)

    def _install_requirements(self, progress: Progress) -> None:
        # One call, so that pip finds versions that fit ComfyUI and the pack. insightface brings the onnxruntime that
        # runs everywhere, and an OpenCV; install.py would choose them by the torch that is there.
        files = [self.comfyui / "requirements.txt", ROOT / "requirements.txt", WORKSHOP / "requirements.txt"]
        arguments = [TORCH, *(word for file in files for word in ("-r", file))]
        self._pip_install(arguments, "installing the packages", progress)

    def _cure(self, progress: Progress) -> None:
        """Makes the native libraries load if the machine does not have what they were built for."""
        is_cpu_build = "import torch; raise SystemExit(bool(torch.version.cuda or torch.version.hip))"
        if not self._succeeds("import torchvision, torchaudio") and self._succeeds(is_cpu_build):
            for library in self.venv.glob("**/site-packages/torchaudio/lib/*.so"):
                library.unlink()
            self.cpu_torch_stamp.touch()
        if not self._succeeds("import cv2"):  # for machines without libGL
            headless: list[str | Path] = ["--force-reinstall", "--no-deps", "opencv-python-headless"]
            self._pip_install(headless, "installing OpenCV", progress)
        progress.run(
            [self.python, "-c", "import torch, torchvision, torchaudio, cv2, insightface"],
            what="importing the installed packages",
            remedy="see the end of the log for what is missing on this machine",
            environment=with_cpu_torch(os.environ) if self.cpu_torch_stamp.exists() else None,
        )

    def _pip_install(self, what: list[str | Path], title: str, progress: Progress) -> None:
        self._discard_half_installed()
        constraints = ["-c", self._constraints()] if self.is_tested else []
        command = [*self.pip, "install", "--no-compile", "--progress-bar", "off", *constraints, *what]
        progress.run(command, what=title, remedy=NETWORK_REMEDY)

    def _constraints(self) -> Path:
        """Returns the tested versions; of a ComfyUI that was given, its own requirements pin the parts of ComfyUI."""
        if not self.is_given:
            return CONSTRAINTS
        others = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("comfy")]
        file = self.folder / "constraints.txt"
        file.write_text("\n".join(others) + "\n", encoding="utf-8")
        return file

    def _discard_half_installed(self) -> None:
        """Removes packages whose installation was interrupted, so that pip installs them again.

        pip writes INSTALLER after all files of a package are in place. Without it, the package only seems installed.
        """
        for folder in self.venv.glob("**/site-packages/*.dist-info"):
            if not (folder / "INSTALLER").exists():
                shutil.rmtree(folder)

    def _succeeds(self, statement: str) -> bool:
        return subprocess.run([self.python, "-c", statement], capture_output=True, check=False).returncode == 0

    def _key(self, given_comfyui: Path | None) -> str:
        """Names what gets installed, and what it is installed with. The text of this file does not count."""
        files = [ROOT / "requirements.txt", *sorted(WORKSHOP.glob("*.txt"))]
        files += [given_comfyui / "requirements.txt"] if given_comfyui else []
        names = [str(BUILD), TORCH, comfyui.PACKAGE_SHA256, sys.version, sys.base_prefix, platform.machine()]
        parts = [*(name.encode() for name in names), *(file.read_bytes() for file in files)]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]


def with_cpu_torch(variables: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Returns the environment variables with which torchvision can be imported with a CPU build of torch."""
    paths = [str(WORKSHOP / "cpu_torch"), variables.get("PYTHONPATH")]
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
