"""Runs a module with the pack importable as `fpga`: `python devtools/launch.py MODULE [arguments]`.

The pack's root never goes on `sys.path`: its `nodes/` would shadow ComfyUI's `nodes.py`. A synthetic package whose
`__path__` is the root is registered instead, the way ComfyUI itself loads the pack.
"""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def register_pack(name: str = "fpga") -> None:
    """Makes the pack importable under a name that every program of the workshop shares."""
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{ROOT / '__init__.py'} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def import_comfyui() -> None:
    """Puts the ComfyUI of COMFYUI_PATH on `sys.path`, set to the CPU where torch sees no GPU."""
    path = os.environ["COMFYUI_PATH"]
    if path not in sys.path:
        sys.path.insert(0, path)
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()


if __name__ == "__main__":
    sys.path = [path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "devtools")]
    register_pack()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
