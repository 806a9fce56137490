"""Runs a module with the pack importable as `fpga`: `python devtools/launch.py MODULE [arguments]`.

The pack's root never goes on `sys.path`, because its `nodes/` would shadow ComfyUI's `nodes.py`. Instead, a synthetic
package with the root as `__path__` is registered, as ComfyUI itself does it.
"""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def register_pack() -> None:
    """Makes the pack importable under the name that all development programs use."""
    runpy.run_path(str(ROOT / "__main__.py"))["register_pack"]("fpga")


if __name__ == "__main__":
    sys.path = [path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "devtools")]
    register_pack()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
