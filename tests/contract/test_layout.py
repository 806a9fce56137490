"""The rules of the layout: who may import whom, how long a file may be, and that nothing depends on one machine."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "fpga_core"
LEAVES = {"errors", "shapes", "geometry", "block_slots", "checkpoints", "packages", "faces"}
HOST = {"comfy", "comfy_extras", "comfy_execution"}
SOME_NODES_NEED = {"cv2", "scipy", "insightface", "onnxruntime"}
SOCKETS = {"comfy_api", "folder_paths", "server", "execution", "nodes"}
# ComfyUI's model code may be imported where models are patched, and where the trainer adapts one.
MAY_IMPORT_HOST = ("fpga_core/patching/", "fpga_core/training/comfy/", "nodes/")
COMPOSING = ("fpga_core/patching/", "fpga_core/training/")
MAX_LINES = {"tests": 600}
MAX_LINES_ELSEWHERE = 400
MACHINE_PATHS = re.compile(r"/work/|/tmp/|/farm/|\.\./shared|/home/\w+/|[A-Z]:\\\\Users\\\\")


def tracked_files() -> list[Path]:
    """Every file of the project: what git tracks or would, or in an unpacked archive everything that is not hidden."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode == 0:
        files = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        files = [file for file in ROOT.rglob("*") if not any(part.startswith((".", "__")) for part in file.parts)]
    return [file for file in files if file.is_file()]


FILES = tracked_files()
PYTHON = [file for file in FILES if file.suffix == ".py"]
PACK = [file for file in PYTHON if file.is_relative_to(CORE) or file.is_relative_to(ROOT / "nodes")]


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every module that a file imports, with its line: the absolute path of the package's own, as parts below the root.

    A relative import is resolved to ("fpga_core", "geometry"); `from . import a` names the module `a` of the package.
    """
    package = file.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            if node.module:
                yield node.lineno, module
            else:
                yield from ((node.lineno, (*module, alias.name)) for alias in node.names)


def is_relative_beyond_root(file: Path) -> list[int]:
    depth = len(file.parent.relative_to(ROOT).parts)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > depth + 1]


def violations(files: list[Path], is_wrong) -> list[str]:
    return [
        f"{name(file)}:{line} imports {'.'.join(module)}"
        for file in files
        for line, module in imports(file)
        if is_wrong(file, module)
    ]


def test_the_rules_see_the_pack():
    """A contract over an empty list of files would hold whatever happens."""
    assert {"fpga_core/errors.py", "fpga_core/geometry.py", "nodes/__init__.py"} <= {name(file) for file in PACK}
    patching = [file for file in PACK if file.parent.name == "patching"]
    assert any(module[0] == "comfy" for file in patching for _, module in imports(file))
    assert any(module[:1] == ("fpga_core",) for file in PACK for _, module in imports(file))


def test_only_patching_training_and_nodes_import_comfyui():
    def is_wrong(file: Path, module: tuple[str, ...]) -> bool:
        return module[0] in HOST and not name(file).startswith(MAY_IMPORT_HOST)

    assert violations(PACK, is_wrong) == []


def test_only_nodes_import_sockets_and_folders():
    def is_wrong(file: Path, module: tuple[str, ...]) -> bool:
        return module[0] in SOCKETS and not (name(file).startswith("nodes/"))

    assert violations([file for file in PACK if file.is_relative_to(CORE)], is_wrong) == []


def test_packages_that_only_some_nodes_need_are_imported_where_they_are_used():
    """At the top of a file, one missing package would take down all nodes."""
    at_the_top = [
        f"{name(file)}:{node.lineno}"
        for file in PACK
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        if module.split(".")[0] in SOME_NODES_NEED
    ]
    assert at_the_top == []


def test_topic_packages_import_only_leaves_and_themselves():
    def is_wrong(file: Path, module: tuple[str, ...]) -> bool:
        if module[0] != "fpga_core" or len(module) == 1:
            return False
        topic = file.relative_to(CORE).parts[0]
        return module[1] not in LEAVES | {topic}

    topics = [file for file in PACK if file.parent not in (CORE, ROOT / "nodes")]
    assert violations([file for file in topics if not name(file).startswith(COMPOSING)], is_wrong) == []


def test_leaves_import_only_leaves():
    def is_wrong(file: Path, module: tuple[str, ...]) -> bool:
        return module[0] == "nodes" or (module[0] == "fpga_core" and len(module) > 1 and module[1] not in LEAVES)

    leaves = [
        file
        for file in PACK
        if file.is_relative_to(CORE) and file.relative_to(CORE).parts[0].removesuffix(".py") in LEAVES
    ]
    assert leaves
    assert violations(leaves, is_wrong) == []


def test_the_pack_imports_itself_relatively():
    """An absolute import would find another package of that name, or ComfyUI's own `nodes`."""
    absolute = [
        f"{name(file)}:{node.lineno}"
        for file in PACK
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and node.module.split(".")[0] in ("fpga_core", "fpga", "nodes")
        )
        or (
            isinstance(node, ast.Import)
            and any(a.name.split(".")[0] in ("fpga_core", "fpga", "nodes") for a in node.names)
        )
    ]
    assert absolute == []


def test_the_root_imports_nothing_at_the_top():
    """A relative import there breaks pytest, and an absolute one would make importing the pack need ComfyUI."""
    body = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8")).body
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("file", PYTHON, ids=name)
def test_files_stay_readable(file):
    limit = MAX_LINES.get(name(file).split("/")[0], MAX_LINES_ELSEWHERE)
    assert len(file.read_text(encoding="utf-8").splitlines()) <= limit, (
        f"{name(file)} is longer than {limit} lines: split it"
    )


def test_nothing_names_a_path_of_one_machine():
    this_test = Path(__file__).resolve()
    found = [
        f"{name(file)}:{number}: {line.strip()[:80]}"
        for file in FILES
        if file != this_test and file.name != ".gitignore"
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert found == []
