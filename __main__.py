"""Runs `fpga-portrait` as `python -m fpga_portrait`, or as `python custom_nodes/fpga-portrait` in ComfyUI."""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).absolute().parent


def register_pack(name: str) -> str:
    """Makes this folder importable as a package with the given name, whatever the folder is called.

    The folder itself never goes on `sys.path`, where its `nodes/` would hide ComfyUI's `nodes.py`.
    """
    if name not in sys.modules:
        spec = spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        if spec is None or spec.loader is None:
            raise ImportError(f"{ROOT / '__init__.py'} cannot be loaded")
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return name


if __name__ == "__main__":
    if not __package__:  # Python was given the folder, and has put it on sys.path
        sys.path = [path for path in sys.path if Path(path).absolute() != ROOT]
    commands = import_module(".commands", __package__ or register_pack("fpga_portrait"))
    sys.exit(commands.main())
