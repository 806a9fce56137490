"""Distinguishes the ONNX runtimes that write to one folder, on made-up installations."""

import sys
from pathlib import Path

import pytest
import torch
from fpga.fpga_core.errors import MissingPackageError
from fpga.fpga_core.faces.onnx_runtimes import (
    CPU,
    CUDA,
    Provider,
    conflict_note,
    empty_note,
    fallback_note,
    import_onnxruntime,
    installed_runtimes,
    mending_command,
    wanted_providers,
)

MEND_GPU = f'"{sys.executable}" -m pip install --force-reinstall --no-deps onnxruntime-gpu'
GPU_BUILD = ["TensorrtExecutionProvider", CUDA, CPU]
CPU_BUILD = ["AzureExecutionProvider", CPU]


def install(folder: Path, name: str, version: str) -> None:
    """Creates what pip leaves of a distribution: a dist-info folder."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "RECORD").write_text("onnxruntime/__init__.py,,\n", encoding="utf-8")


def test_installed_distributions_are_found_by_their_metadata(tmp_path):
    install(tmp_path, "onnxruntime", "1.32.0")
    install(tmp_path, "onnxruntime-gpu", "1.31.2")
    install(tmp_path, "onnxruntime-genai", "0.9.0")  # writes a folder of its own
    install(tmp_path, "numpy", "2.4.6")
    assert installed_runtimes([str(tmp_path)]) == {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.2"}
    assert installed_runtimes([str(tmp_path / "empty")]) == {}


def test_names_are_compared_as_pip_compares_them(tmp_path):
    install(tmp_path, "ONNXRuntime_GPU", "1.0")
    assert list(installed_runtimes([str(tmp_path)])) == ["onnxruntime-gpu"]


def test_this_python_s_own_runtime_is_found():
    assert set(installed_runtimes()) & {"onnxruntime", "onnxruntime-gpu"}


def test_both_installed_with_the_cpu_s_files_on_top_is_one_command_away(tmp_path):
    install(tmp_path, "onnxruntime", "1.32.0")
    install(tmp_path, "onnxruntime-gpu", "1.31.2")
    note = conflict_note(installed_runtimes([str(tmp_path)]), CPU_BUILD)
    assert "onnxruntime 1.32.0" in note and "onnxruntime-gpu 1.31.2" in note
    assert note.count("pip install") == 1 and note.endswith(MEND_GPU)


@pytest.mark.parametrize(
    ("installed", "available"),
    [
        ({"onnxruntime": "1", "onnxruntime-gpu": "1"}, GPU_BUILD),  # mended already: the GPU's files are on top
        ({"onnxruntime": "1"}, CPU_BUILD),
        ({"onnxruntime-gpu": "1"}, GPU_BUILD),
        ({"onnxruntime": "1", "onnxruntime-openvino": "1"}, CPU_BUILD),
        ({}, CPU_BUILD),  # built by hand
    ],
)
def test_installations_that_are_in_order_are_left_alone(installed, available):
    assert conflict_note(installed, available) is None


@pytest.mark.parametrize(
    ("installed", "package"),
    [
        ({"onnxruntime": "1"}, "onnxruntime"),  # the GPU's was removed, and took the shared folder's files with it
        ({"onnxruntime-gpu": "1"}, "onnxruntime-gpu"),
        ({"onnxruntime": "1", "onnxruntime-gpu": "1"}, "onnxruntime-gpu"),
        ({}, "onnxruntime"),
    ],
)
def test_an_empty_package_is_filled_by_what_is_meant_to_be_there(installed, package):
    assert empty_note(installed).endswith(mending_command(package))


@pytest.mark.parametrize(
    ("installed", "available", "has_nvidia_gpu", "expected"),
    [
        ({"onnxruntime": "1", "onnxruntime-gpu": "1"}, CPU_BUILD, True, MEND_GPU),
        ({"onnxruntime": "1"}, CPU_BUILD, True, MEND_GPU),
        ({"onnxruntime-gpu": "1"}, GPU_BUILD, True, '"onnxruntime-gpu[cuda,cudnn]"'),
        ({"onnxruntime-gpu": "1"}, GPU_BUILD, False, "PyTorch does not see an Nvidia GPU"),
        ({"onnxruntime": "1"}, CPU_BUILD, False, "PyTorch does not see an Nvidia GPU"),
    ],
)
def test_a_cuda_request_on_the_cpu_says_why_and_how_to_mend_it(installed, available, has_nvidia_gpu, expected):
    machine = {"installed": installed, "available": available, "has_nvidia_gpu": has_nvidia_gpu}
    note = fallback_note(CUDA, CPU, **machine)
    assert note.startswith(f"running on {CPU}, not on {CUDA}: ") and expected in note
    assert fallback_note(CUDA, CUDA, **machine) is None


@pytest.mark.parametrize(("cuda", "versions"), [("12.8", ">=1.19,<1.27"), ("13.0", ">=1.27"), ("11.8", "<1.19")])
def test_the_build_that_is_asked_for_is_for_the_cuda_of_torch(monkeypatch, cuda, versions):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert mending_command("onnxruntime-gpu").endswith(f' "onnxruntime-gpu{versions}"')
    machine = {"installed": {"onnxruntime-gpu": "1"}, "available": GPU_BUILD, "has_nvidia_gpu": True}
    assert fallback_note(CUDA, CPU, **machine).endswith(f' "onnxruntime-gpu[cuda,cudnn]{versions}"')


def test_other_requests_say_what_the_build_lacks():
    wanted = Provider.DIRECTML.execution_provider
    machine = {"installed": {"onnxruntime": "1"}, "has_nvidia_gpu": True}
    assert "is built without it" in fallback_note(wanted, CPU, available=CPU_BUILD, **machine)
    assert "cannot start it" in fallback_note(wanted, CPU, available=[wanted, CPU], **machine)


def test_an_empty_package_is_an_error_with_the_command(tmp_path, monkeypatch):
    """Uninstalling one of two distributions leaves a folder that can be imported and contains nothing."""
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    with pytest.raises(MissingPackageError, match="installed, but empty") as caught:
        import_onnxruntime()
    assert str(caught.value).endswith(MEND_GPU)


def test_a_missing_package_is_an_error_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match="cannot be imported") as caught:
        import_onnxruntime()
    assert str(caught.value).endswith(mending_command("onnxruntime"))


@pytest.mark.parametrize(
    ("provider", "available", "wanted"),
    [
        (Provider.AUTO, GPU_BUILD, [CUDA, CPU]),
        (Provider.AUTO, CPU_BUILD, [CPU]),
        (Provider.AUTO, ["CoreMLExecutionProvider", CPU], ["CoreMLExecutionProvider", CPU]),
        (Provider.CPU, GPU_BUILD, [CPU]),
        (Provider.CUDA, CPU_BUILD, [CUDA, CPU]),
        (Provider.ROCM, GPU_BUILD, ["ROCMExecutionProvider", CPU]),
    ],
)
def test_the_cpu_is_always_the_last_resort(provider, available, wanted):
    assert wanted_providers(provider, available) == wanted
