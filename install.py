"""Completes what requirements.txt installs, without replacing what is there. ComfyUI-Manager runs it; so can anyone:

    pip install -r requirements.txt
    python install.py

requirements.txt alone cannot express three things. `onnxruntime` and `onnxruntime-gpu` write to the same folder, and
which one is right depends on torch. Four packages hold `cv2`, and any one of them will do. insightface asks for one of
each by name, so that pip would put a second one over them.

The file changes nothing if nothing is wrong, and says what it did. It needs only Python and pip.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TITLE = "FPGA Portrait"
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
OPENCV_TO_INSTALL = "opencv-python-headless"
"""It needs no libraries of a desktop, which servers and containers lack."""

INSIGHTFACE = "insightface>=2.0"
NEEDED_BY_INSIGHTFACE = ("onnx", "requests", "scikit-image", "tqdm")
"""What it needs beside OpenCV, ONNX Runtime and what requirements.txt names."""

CPU, GPU = "onnxruntime", "onnxruntime-gpu"
RUNTIMES = (CPU, GPU, "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")
"""The packages that write to the folder `onnxruntime`."""

GPU_VERSIONS = {"11": "<1.19", "12": ">=1.19,<1.27", "13": ">=1.27"}
"""The major version of the CUDA that torch is built for -> the versions of onnxruntime-gpu on PyPI that are for it."""


@dataclass(frozen=True)
class Installed:
    """What is there.

    Attributes:
        versions: name -> version of the installed packages.
        torch_cuda: the version of CUDA that torch was built for; None for another build, or without torch.
        runtime: the package whose files are on top in the folder `onnxruntime`; None if there are none.
        runtime_cuda: the version of CUDA that these files are built for; None for another build, or if they do not say.
        has_cv2: whether a module `cv2` is there, from whichever package.
        has_gpu_wheels: whether onnxruntime-gpu is published for this machine.
    """

    versions: Mapping[str, str]
    torch_cuda: str | None
    runtime: str | None
    runtime_cuda: str | None
    has_cv2: bool
    has_gpu_wheels: bool


@dataclass(frozen=True)
class Step:
    """One command that mends something.

    Attributes:
        reason: what is wrong.
        arguments: of `pip install`.
    """

    reason: str
    arguments: tuple[str, ...]


def plan(found: Installed) -> list[Step]:
    """Returns the commands that are needed, in order; none if nothing is wrong."""
    steps: list[Step] = []
    if not found.has_cv2:
        steps.append(Step("no OpenCV is installed", (OPENCV_TO_INSTALL,)))
    insightface = found.versions.get("insightface")
    if insightface is None or int(insightface.partition(".")[0]) < 2:
        reason = "insightface is not installed" if insightface is None else f"insightface {insightface} is too old"
        steps.append(Step(reason, ("--no-deps", INSIGHTFACE)))  # it would bring a second OpenCV and ONNX Runtime
    if missing := tuple(name for name in NEEDED_BY_INSIGHTFACE if name not in found.versions):
        steps.append(Step(f"insightface needs {', '.join(missing)}", missing))
    steps += runtime_steps(found)
    return steps


def runtime_steps(found: Installed) -> list[Step]:
    """Returns the command that puts the right ONNX Runtime on top, if another one is there, or none."""
    installed = [name for name in RUNTIMES if name in found.versions]
    if found.torch_cuda and found.has_gpu_wheels:
        major = found.torch_cuda.partition(".")[0]
        if found.runtime == GPU and (found.runtime_cuda or major).partition(".")[0] == major:
            return []
        wanted = f"{GPU}{GPU_VERSIONS.get(major, '')}"
        build = f"torch is built for CUDA {found.torch_cuda}"
        if found.runtime == GPU:
            build += f" and ONNX Runtime for CUDA {found.runtime_cuda}"
    else:
        wanted = next((name for name in installed if name != CPU), CPU)
        if found.runtime == wanted or (found.runtime and wanted == GPU):  # without a GPU, both builds use the CPU
            return []
        wanted = f"{wanted}=={found.versions[wanted]}" if wanted in installed else wanted
        build = "torch is not built for CUDA"
    if not installed:
        return [Step("no ONNX Runtime is installed", (wanted,))]
    on_top = f"the files of {found.runtime} are on top" if found.runtime else "the folder onnxruntime is empty"
    return [Step(f"{build}, but {on_top}", ("--force-reinstall", "--no-deps", wanted))]


def look() -> Installed:
    """Looks at the Python that runs this file, without importing any package."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        versions.setdefault(name, distribution.version)
    return Installed(
        versions=versions,
        torch_cuda=_written(_module_file("torch", "version.py"), "cuda"),
        runtime=_runtime_on_top(),
        runtime_cuda=_written(_module_file("onnxruntime", "capi/build_and_package_info.py"), "cuda_version"),
        has_cv2=any(name in versions for name in OPENCV) or importlib.util.find_spec("cv2") is not None,
        has_gpu_wheels=sys.platform != "darwin" and platform.machine() in ("x86_64", "AMD64"),
    )


def _runtime_on_top() -> str | None:
    package = _module_file("onnxruntime", "__init__.py")
    if package is None:
        return None
    is_old_gpu_build = any((package.parent / "capi").glob("*onnxruntime_providers_cuda.*"))  # before 1.19
    named = _written(package.parent / "capi" / "build_and_package_info.py", "package_name")
    return named or (GPU if is_old_gpu_build else CPU)


def _module_file(package: str, file: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((Path(folder) / file for folder in folders or () if (Path(folder) / file).is_file()), None)


def _written(file: Path | None, name: str) -> str | None:
    """Returns the text that a Python file assigns to a name."""
    if file is None or not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"^{name}\s*(?::[^=\n]*)?=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def pip_install(arguments: tuple[str, ...], versions: Mapping[str, str]) -> int:
    """Runs pip in this Python. The installed NumPy stays as it is: pip chooses versions of the others that fit it.

    Returns:
        pip's exit status.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        numpy = versions.get("numpy")
        constraints.write_text(f"numpy=={numpy}\n" if numpy else "", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "-c", str(constraints), *arguments]
        return subprocess.run(command, check=False).returncode


def quoted(argument: str) -> str:
    """Returns an argument as a command line can hold it."""
    return f'"{argument}"' if set(argument) & set("<>=") else argument


def say(text: str) -> None:
    print(f"{TITLE}: {text}", flush=True)


def main() -> int:
    """Mends what is wrong, and returns 1 if a command fails."""
    found = look()
    steps = plan(found)
    for step in steps:
        command = f'"{sys.executable}" -m pip install {" ".join(map(quoted, step.arguments))}'
        say(f"{step.reason}, so this runs now: {command}")
        if pip_install(step.arguments, found.versions):
            say(f"run this command yourself, and then this file again: {command}")
            return 1
    if steps:
        importlib.invalidate_caches()
        found = look()
    cuda = f"torch for CUDA {found.torch_cuda}" if found.torch_cuda else "torch without CUDA"
    opencv = " and ".join(name for name in OPENCV if name in found.versions) or "cv2 of another package"
    say(
        f"{'done' if steps else 'nothing to change'}: {found.runtime} runs with {cuda}; insightface "
        f"{found.versions.get('insightface')} and {opencv} are installed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
