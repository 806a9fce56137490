"""Makes the pack importable as `fpga`, and ComfyUI importable where it is there.

The pack's root never goes on `sys.path`: its `nodes/` would shadow ComfyUI's `nodes.py`. A synthetic package whose `__path__` is the
root is registered instead, the way ComfyUI itself loads the pack: `from fpga.fpga_core.geometry import Box`.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def register_pack(name: str = "fpga") -> None:
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def import_comfyui() -> None:
    """Puts the ComfyUI of `COMFYUI_PATH` on `sys.path`, set to the CPU where torch sees no GPU."""
    path = os.environ["COMFYUI_PATH"]
    if path not in sys.path:
        sys.path.insert(0, path)
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()


register_pack()
sys.path.insert(0, str(ROOT / "tests" / "support"))
if os.environ.get("COMFYUI_PATH"):
    import_comfyui()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need a ComfyUI say so when there is none; under CI that is a failure instead."""
    if os.environ.get("COMFYUI_PATH"):
        return
    for item in items:
        if item.path.parent.name in ("patching", "host", "browser"):
            reason = "COMFYUI_PATH is not set: run `python dev.py test`, which gets a ComfyUI"
            item.add_marker(pytest.mark.skip(reason=reason))
