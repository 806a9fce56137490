"""The list of all names of ComfyUI that the pack uses, to check when ComfyUI changes."""

import ast
import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("host_symbols.txt")
HOST = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "node_helpers")


def dotted(node: ast.AST) -> str | None:
    """`a.b.c` of an attribute chain on a plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := dotted(node.value)):
        return f"{value}.{node.attr}"
    return None


def used_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] in HOST:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.split(".")[0] in HOST]
            modules |= {alias.asname or alias.name: alias.name for alias in ours}
    chains = {name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (name := dotted(node))}
    for alias, module in modules.items():
        for chain in chains:
            if chain.startswith(f"{alias}."):
                found.add(f"{module}.{chain.removeprefix(alias + '.').split('.')[0]}")
    return {name for name in found if not is_module(name)}


def is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def used() -> set[str]:
    files = [*(ROOT / "fpga_core").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]
    return set().union(*map(used_in, files))


def test_the_list_is_complete():
    listed = {line for line in LISTED.read_text(encoding="utf-8").splitlines() if line}
    assert used() == listed, "write the difference into tests/contract/host_symbols.txt"


def test_every_listed_name_is_there():
    for line in LISTED.read_text(encoding="utf-8").split():
        module, _, name = line.rpartition(".")
        assert hasattr(importlib.import_module(module), name), line
