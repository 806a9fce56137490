"""The pack as a library: its public parts by name, without ComfyUI, and without disturbing how ComfyUI loads it."""

import ast
import subprocess
import sys
from pathlib import Path

import fpga
import pytest
from fpga import fpga_core

ROOT = Path(__file__).resolve().parents[2]


def test_type_checkers_see_the_same_parts():
    """What fpga_core imports for type checkers is what it gives when asked."""
    tree = ast.parse((ROOT / "fpga_core" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == fpga_core.MODULES


@pytest.mark.parametrize("name", fpga_core.__all__)
def test_every_part_is_there_and_says_what_it_is(name):
    part = getattr(fpga, name)
    assert part is getattr(fpga_core, name)
    assert part.__name__ == name
    assert part.__doc__
    assert name in dir(fpga)


def test_what_is_not_a_part_is_not_there():
    """ComfyUI asks in this way for other forms of node packs."""
    assert not hasattr(fpga, "NODE_CLASS_MAPPINGS")
    assert not hasattr(fpga_core, "NODE_CLASS_MAPPINGS")


def test_asking_for_a_part_that_is_not_there_imports_nothing():
    code = f"""
import runpy, sys
runpy.run_path({str(ROOT / "__main__.py")!r})["register_pack"]("pack")
import pack
assert not hasattr(pack, "NODE_CLASS_MAPPINGS") and pack.WEB_DIRECTORY
loaded = [name for name in sys.modules if name.startswith("pack.") or name in ("torch", "numpy", "comfy")]
assert loaded == ["pack.fpga_core"], loaded
assert issubclass(pack.FPGAError, Exception)
"""
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (reply.returncode, reply.stderr) == (0, "")
