"""Finds which ONNX Runtime is installed, what it can run on, and how to fix it.

`onnxruntime` and `onnxruntime-gpu` write to the same folder. If both are installed, the last one wins, and pip does not
notice. If either is removed, an empty package remains. insightface requires the CPU package, so most installations with
an Nvidia GPU end up with both.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..boundaries import guarded
from ..errors import CheckpointReadError, MissingPackageError
from ..packages import importing, pip_command

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

GPU_PACKAGE = "onnxruntime-gpu"
CPU_PACKAGE = "onnxruntime"
GPU_VERSIONS = {"11": "<1.19", "12": ">=1.19,<1.27", "13": ">=1.27"}
"""The major version of the CUDA that torch is built for -> the versions of onnxruntime-gpu on PyPI that are for it."""

SHARED_FOLDER = (CPU_PACKAGE, GPU_PACKAGE, "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")
"""The packages that write to the folder `onnxruntime`."""

MENDING = "--force-reinstall --no-deps"
"""The pip options that put the files of one package on top of all others in the folder `onnxruntime`."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

logger = logging.getLogger(__name__)


class Provider(str, Enum):
    """The devices that the user can choose."""

    AUTO = "auto"
    CUDA = "CUDA"
    ROCM = "ROCm"
    DIRECTML = "DirectML"
    COREML = "CoreML"
    CPU = "CPU"

    @property
    def execution_provider(self) -> str:
        """ONNX Runtime's name of the provider; that of the CPU for auto."""
        return _EXECUTION_PROVIDERS.get(self, CPU)


_EXECUTION_PROVIDERS: Mapping[Provider, str] = {
    Provider.CUDA: CUDA,
    Provider.ROCM: "ROCMExecutionProvider",
    Provider.DIRECTML: "DmlExecutionProvider",
    Provider.COREML: "CoreMLExecutionProvider",
}


def wanted_providers(provider: Provider, available: Sequence[str]) -> list[str]:
    """Returns the execution providers to ask for, with the CPU always last.

    Args:
        provider: the user's choice.
        available: the providers that ONNX Runtime was built with; they do not necessarily work.
    """
    if provider is Provider.AUTO:
        accelerators = [name for name in _EXECUTION_PROVIDERS.values() if name in available][:1]
        return [*accelerators, CPU]
    return list(dict.fromkeys([provider.execution_provider, CPU]))


def installed_runtimes(search_path: Iterable[str] | None = None) -> dict[str, str]:
    """Returns the installed packages that write to the folder `onnxruntime`.

    Args:
        search_path: folders to look in; None: those in which Python itself looks.
    Returns:
        Name -> version.
    """
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=list(sys.path if search_path is None else search_path)):
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name in SHARED_FOLDER:
            found.setdefault(name, distribution.version)
    return found


def mending_command(package: str) -> str:
    """Returns the command that puts the files of one package on top of all others in the folder `onnxruntime`."""
    return pip_command(f"{MENDING} {_gpu_requirement() if package == GPU_PACKAGE else package}")


def _gpu_requirement(extras: str = "") -> str:
    """Returns what to ask pip for, so that the build is for the CUDA that torch is built for."""
    import torch

    versions = GPU_VERSIONS.get((torch.version.cuda or "").partition(".")[0], "")
    requirement = f"{GPU_PACKAGE}{extras}{versions}"
    return f'"{requirement}"' if extras or versions else requirement


def empty_note(installed: Mapping[str, str]) -> str:
    """What to tell the user if the folder `onnxruntime` exists, but holds nothing that can be imported.

    Args:
        installed: as `installed_runtimes` returns it.
    """
    return (
        "onnxruntime is installed, but empty: one of two packages that write to the same folder was removed; run this "
        f"command, then restart ComfyUI: {mending_command(_preferred(installed))}"
    )


def conflict_note(installed: Mapping[str, str], available: Sequence[str]) -> str | None:
    """What to tell the user if several distributions wrote the same folder, and the CPU's files are on top.

    Args:
        installed: as `installed_runtimes` returns it.
        available: execution providers that ONNX Runtime was built with.
    """
    if len(installed) < 2 or _preferred(installed) != GPU_PACKAGE or CUDA in available:
        return None
    names = " and ".join(f"{name} {version}" for name, version in installed.items())
    return (
        f"{names} are both installed and write to the same folder, and the files of the CPU package won; run this "
        f"command, then restart ComfyUI: {mending_command(GPU_PACKAGE)}"
    )


def _preferred(installed: Mapping[str, str]) -> str:
    """Whose files should be on top: the GPU's, if it is installed."""
    return GPU_PACKAGE if GPU_PACKAGE in installed else next(iter(installed), CPU_PACKAGE)


def fallback_note(
    wanted: str, used: str, *, installed: Mapping[str, str], available: Sequence[str], has_nvidia_gpu: bool
) -> str | None:
    """Returns why a slower device runs than the requested one, and how to fix it.

    Args:
        wanted: the first of the requested execution providers.
        used: the one that the session reports to run on.
        installed: as `installed_runtimes` returns it.
        available: execution providers that ONNX Runtime was built with.
        has_nvidia_gpu: whether torch sees an Nvidia GPU.
    Returns:
        One or two sentences; None if the wanted provider is used.
    """
    if used == wanted:
        return None
    start = f"running on {used}, not on {wanted}"
    if conflict := conflict_note(installed, available):
        return f"{start}: {conflict}"
    if wanted != CUDA:
        return f"{start}: the installed onnxruntime {'cannot start' if wanted in available else 'is built without'} it"
    if not has_nvidia_gpu:
        return (
            f"{start}: PyTorch does not see an Nvidia GPU on this machine either; choose CPU, or fix the GPU's driver "
            "first"
        )
    if CUDA not in available:
        return (
            f"{start}: the installed onnxruntime is the CPU version; run install.py of the pack, or this command, then "
            f"restart ComfyUI: {mending_command(GPU_PACKAGE)}"
        )
    return (
        f"{start}: its CUDA and cuDNN libraries were not found, or are not of the version that this {GPU_PACKAGE} "
        f"needs; run this command, then restart ComfyUI: {pip_command(_gpu_requirement('[cuda,cudnn]'))}"
    )


def provider_notes(provider: Provider, *, wanted: str, used: str, available: Sequence[str]) -> tuple[str, ...]:
    """Returns notes for the user about the device that a session runs on, and logs them as warnings.

    Args:
        provider: the user's choice.
        wanted: the first of the requested execution providers.
        used: the one that the session reports to run on.
        available: execution providers that ONNX Runtime was built with.
    Returns:
        One note, or none. `auto` accepts the CPU if there is no Nvidia GPU.
    """
    import torch

    has_nvidia_gpu = torch.cuda.is_available() and torch.version.cuda is not None
    if provider is Provider.AUTO:
        if not has_nvidia_gpu:
            return ()
        wanted = CUDA
    note = fallback_note(
        wanted, used, installed=installed_runtimes(), available=available, has_nvidia_gpu=has_nvidia_gpu
    )
    if note is None:
        return ()
    logger.warning("%s", note)
    return (note,)


def import_onnxruntime() -> ModuleType:
    """Returns the package, which is imported only when a model is loaded.

    Raises:
        MissingPackageError: it is not installed, or is empty; the message gives the command that fixes it.
    """
    with importing(CPU_PACKAGE, install=f"{MENDING} {CPU_PACKAGE}"):
        import onnxruntime
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingPackageError(empty_note(installed_runtimes()))
    return onnxruntime


def open_onnx(path: Path, providers: Sequence[str]) -> InferenceSession:
    """Opens an ONNX file.

    Args:
        path: the file.
        providers: execution providers that this ONNX Runtime was built with.
    Raises:
        CheckpointReadError: ONNX Runtime cannot read the file.
    """
    session = import_onnxruntime().InferenceSession
    with guarded(CheckpointReadError, f"'{path.name}' cannot be read as ONNX", advice="download it again"):
        return session(str(path), providers=list(providers))


class OnnxNetwork:
    """A network of one ONNX file with one input.

    Args:
        path: the file.
        provider: the device to run on.
    Raises:
        MissingPackageError: onnxruntime is missing or broken.
        CheckpointReadError: the file is damaged.
    """

    def __init__(self, path: Path, provider: Provider) -> None:
        available = import_onnxruntime().get_available_providers()
        wanted = wanted_providers(provider, available)
        self.name = path.name
        self.session = open_onnx(path, [name for name in wanted if name in available])
        used = self.session.get_providers()[0]
        self.notes = provider_notes(provider, wanted=wanted[0], used=used, available=available)
        """What differs from the request."""

    @property
    def description(self) -> str:
        """Model and execution provider, as shown to the user."""
        return f"{self.name} on {self.session.get_providers()[0]}"
