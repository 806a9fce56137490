"""install.py in environments of its own: which files win, and that nothing is changed if nothing is wrong."""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fpga.fpga_core.faces import onnx_runtimes
from fpga.install import GPU_VERSIONS, NEEDED_BY_INSIGHTFACE, Installed, plan

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {name: "1.0" for name in NEEDED_BY_INSIGHTFACE}
INSIGHTFACE = {"insightface": "2.1", **NEEDED}
GPU_BUILD = {"onnxruntime-gpu": "1.26.0"}
GOOD = Installed(
    versions={**INSIGHTFACE, "opencv-python": "4.11", "onnxruntime": "1.32.0", **GPU_BUILD},
    torch_cuda="12.8",
    runtime="onnxruntime-gpu",
    runtime_cuda="12.8",
    has_cv2=True,
    has_gpu_wheels=True,
)
CPU_ONLY = {**INSIGHTFACE, "onnxruntime": "1.32.0"}

PLANS = {
    "all is well": (GOOD, []),
    "the CPU build won over the GPU build": (
        replace(GOOD, runtime="onnxruntime", runtime_cuda=None),
        [("--force-reinstall", "--no-deps", "onnxruntime-gpu>=1.19,<1.27")],
    ),
    "only the CPU build, for CUDA": (
        replace(GOOD, versions=CPU_ONLY, runtime="onnxruntime", runtime_cuda=None),
        [("--force-reinstall", "--no-deps", "onnxruntime-gpu>=1.19,<1.27")],
    ),
    "the GPU build is for another CUDA than torch": (
        replace(GOOD, runtime_cuda="13.0"),
        [("--force-reinstall", "--no-deps", "onnxruntime-gpu>=1.19,<1.27")],
    ),
    "CUDA 13": (replace(GOOD, torch_cuda="13.0", runtime_cuda="13.0"), []),
    "CUDA 13, with the build for CUDA 12": (
        replace(GOOD, torch_cuda="13.0"),
        [("--force-reinstall", "--no-deps", "onnxruntime-gpu>=1.27")],
    ),
    "a build that does not say its CUDA": (replace(GOOD, runtime_cuda=None), []),
    "only the CPU build, for a CPU": (replace(GOOD, versions=CPU_ONLY, runtime="onnxruntime", torch_cuda=None), []),
    "the GPU build, for a CPU": (replace(GOOD, torch_cuda=None), []),
    "both, the CPU build on top, for a CPU": (replace(GOOD, torch_cuda=None, runtime="onnxruntime"), []),
    "one was removed, and the folder is empty": (
        replace(GOOD, versions={**INSIGHTFACE, **GPU_BUILD}, runtime=None),
        [("--force-reinstall", "--no-deps", "onnxruntime-gpu>=1.19,<1.27")],
    ),
    "DirectML below the CPU build": (
        replace(GOOD, versions={**CPU_ONLY, "onnxruntime-directml": "1.24"}, torch_cuda=None, runtime="onnxruntime"),
        [("--force-reinstall", "--no-deps", "onnxruntime-directml==1.24")],
    ),
    "a machine without wheels for GPUs": (
        replace(GOOD, has_gpu_wheels=False, versions=CPU_ONLY, runtime="onnxruntime"),
        [],
    ),
    "nothing at all": (
        replace(GOOD, versions={}, torch_cuda=None, runtime=None, has_cv2=False),
        [("opencv-python-headless",), ("--no-deps", "insightface>=2.0"), NEEDED_BY_INSIGHTFACE, ("onnxruntime",)],
    ),
    "an old insightface": (
        replace(GOOD, versions={**GOOD.versions, "insightface": "0.7.3"}),
        [("--no-deps", "insightface>=2.0")],
    ),
}


@pytest.mark.parametrize("situation", PLANS)
def test_what_is_done(situation):
    found, commands = PLANS[situation]
    assert [step.arguments for step in plan(found)] == commands


def test_the_notes_on_the_node_name_the_same_versions():
    assert GPU_VERSIONS == onnx_runtimes.GPU_VERSIONS


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], requires: tuple[str, ...] = ()) -> None:
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents = {
        **files,
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {line}\n" for line in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{stem}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in contents.items():
            wheel.writestr(path, text)


def runtime_files(name: str, cuda: str = "") -> dict[str, str]:
    info = f"package_name = '{name}'\n" + (f"cuda_version = '{cuda}'\n" if cuda else "")
    return {"onnxruntime/__init__.py": "", "onnxruntime/capi/build_and_package_info.py": info}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Stand-ins with the names, the folders and the requirements of the real packages."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "onnxruntime", "1.32.0", runtime_files("onnxruntime"), ("numpy>=1.21.6",))
    for version, cuda in (("1.26.0", "12.8"), ("1.31.1", "13.0")):  # as published
        write_wheel(folder, "onnxruntime-gpu", version, runtime_files("onnxruntime-gpu", cuda), ("numpy>=1.21.6",))
    write_wheel(
        folder, "insightface", "2.1", {"insightface/__init__.py": ""}, ("onnxruntime", "opencv-python", "numpy")
    )
    for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python"):
        write_wheel(folder, name, "4.11.0.86", {"cv2/__init__.py": f"name = '{name}'\n"}, ("numpy>=1.21.2",))
        write_wheel(folder, name, "5.0.0.93", {"cv2/__init__.py": f"name = '{name}'\n"}, ("numpy>=2",))
    for name in NEEDED_BY_INSIGHTFACE:
        write_wheel(folder, name, "1.0", {f"{name.replace('-', '_')}/__init__.py": ""}, ("numpy>=1.24",))
        write_wheel(folder, name, "2.0", {f"{name.replace('-', '_')}/__init__.py": ""}, ("numpy>=2",))
    for version in ("1.26.4", "2.4.6"):
        write_wheel(folder, "numpy", version, {"numpy/__init__.py": f"__version__ = '{version}'\n"})
    for build, cuda in (("cpu", None), ("cu128", "12.8")):
        files = {"torch/__init__.py": "raise ImportError", "torch/version.py": f"cuda: Optional[str] = {cuda!r}\n"}
        write_wheel(folder, "torch", f"2.13.0+{build}", files)
    return folder


class Site:
    """An environment with pip and nothing else, which sees only the stand-ins."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        (self.python,) = (*folder.glob("bin/python"), *folder.glob("Scripts/python.exe"))
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))},
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, *arguments: str) -> str:
        command = [self.python, *arguments]
        reply = subprocess.run(command, env=self.variables, capture_output=True, text=True, timeout=120)
        assert reply.returncode == 0, reply.stdout + reply.stderr
        return reply.stdout

    def install(self) -> list[str]:
        """Runs the script, and returns what it says."""
        lines = self.run(str(ROOT / "install.py")).splitlines()
        return [line.removeprefix("FPGA Portrait: ") for line in lines if line.startswith("FPGA Portrait: ")]

    def read(self, statement: str) -> str:
        return self.run("-c", statement).strip()

    @property
    def runtime(self) -> str:
        return self.read("from onnxruntime.capi.build_and_package_info import package_name; print(package_name)")

    @property
    def packages(self) -> list[str]:
        return self.run("-m", "pip", "freeze").splitlines()


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("environment") / "empty"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    return folder


@pytest.fixture
def site(tmp_path, wheels, empty_environment) -> Site:
    return Site(shutil.copytree(empty_environment, tmp_path / "site", symlinks=True), wheels)


def test_torch_for_cuda_ends_with_the_gpu_build_on_top_and_a_second_run_changes_nothing(site):
    site.run("-m", "pip", "install", "torch==2.13.0+cu128", "onnxruntime-gpu", "insightface")  # for another CUDA
    site.run("-m", "pip", "install", "--force-reinstall", "--no-deps", "onnxruntime")  # the last one wins
    assert site.runtime == "onnxruntime"
    said = site.install()
    assert site.runtime == "onnxruntime-gpu"
    assert any("torch is built for CUDA 12.8, but the files of onnxruntime are on top" in line for line in said)
    assert "onnxruntime-gpu runs with torch for CUDA 12.8" in said[-1]
    assert "onnxruntime-gpu==1.26.0" in site.packages  # newer ones are built for CUDA 13
    before = site.packages
    (said,) = site.install()
    assert said.startswith("nothing to change") and site.packages == before


def test_a_fresh_environment_with_torch_for_a_cpu_gets_the_cpu_build(site):
    site.run("-m", "pip", "install", "torch==2.13.0+cpu", "numpy")
    said = site.install()
    assert len(said) == 5 and site.runtime == "onnxruntime"
    names = {line.partition("==")[0] for line in site.packages}
    assert names == {"torch", "numpy", "insightface", *NEEDED_BY_INSIGHTFACE, "onnxruntime", "opencv-python-headless"}


def test_a_fresh_environment_with_torch_for_cuda_gets_the_gpu_build_alone(site):
    site.run("-m", "pip", "install", "torch==2.13.0+cu128", "numpy")
    site.install()
    assert site.runtime == "onnxruntime-gpu" and "onnxruntime-gpu==1.26.0" in site.packages
    assert not any(line.startswith("onnxruntime==") for line in site.packages)


@pytest.mark.parametrize("opencv", ["opencv-python", "opencv-contrib-python"])
def test_an_opencv_that_is_there_is_the_only_one_and_numpy_1_stays(site, opencv):
    site.run("-m", "pip", "install", "torch==2.13.0+cpu", "numpy<2", f"{opencv}<5")
    site.install()
    assert site.read("import cv2, numpy; print(cv2.name, numpy.__version__)") == f"{opencv} 1.26.4"
    assert sum(line.startswith("opencv") for line in site.packages) == 1


def test_an_environment_of_numpy_1_gets_an_opencv_that_fits_it(site):
    site.run("-m", "pip", "install", "torch==2.13.0+cpu", "numpy<2")
    site.install()
    assert {"numpy==1.26.4", "opencv-python-headless==4.11.0.86"} <= set(site.packages)
