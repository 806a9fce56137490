"""The project's own files, for the contract tests that read them: what there is, and what imports what."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Module = tuple[str, ...]
"""A module's path, ("fpga_core", "geometry"): of the project's own, from its root."""


def listed_files() -> list[Path]:
    """Every file of the project: what git tracks or would, or in an unpacked archive everything that is not hidden."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode == 0:
        files = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        files = [file for file in ROOT.rglob("*") if not any(part.startswith((".", "__")) for part in file.parts)]
    return [file for file in files if file.is_file()]


def name(file: Path) -> str:
    """A file's path from the root, with slashes."""
    return file.relative_to(ROOT).as_posix()


FILES = listed_files()
PYTHON = [file for file in FILES if file.suffix == ".py"]
CORE = [file for file in PYTHON if name(file).startswith("fpga_core/")]
COMPOSED_ON_COMFYUI = ("fpga_core/patching/", "fpga_core/training/comfy/")
PURE = [file for file in CORE if not name(file).startswith(COMPOSED_ON_COMFYUI)]
"""The pure core: tensors in, tensors out, and nothing of ComfyUI's."""


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_of(file: Path) -> Module:
    """The module that a file is: a package for its `__init__.py`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] or ROOT_MODULE if parts[-1] == "__init__" else parts


ROOT_MODULE = ("__init__",)
OWN = {module_of(file) for file in PYTHON}


@cache
def imports(file: Path) -> tuple[tuple[int, Module], ...]:
    """Every module that a file imports, anywhere in it, with the line.

    Relative imports, and absolute ones of the pack by the name `fpga`, become paths from the root; `from . import a`
    names the module `a` if there is one.
    """
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[tuple[int, Module]]:
    package = file.parent.relative_to(ROOT).parts
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, without_fpga(tuple(alias.name.split(".")))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = without_fpga((*base, *(node.module.split(".") if node.module else ())))
            for alias in node.names:
                yield node.lineno, (*module, alias.name) if (*module, alias.name) in OWN else module or ROOT_MODULE


def without_fpga(module: Module) -> Module:
    return module[1:] if module[:1] == ("fpga",) else module
