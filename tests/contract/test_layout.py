"""The rules of the layout: which modules import which, how long files can be, and that nothing depends on a machine."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sources import CORE, FILES, PURE, PYTHON, ROOT, Module, imports, name, parsed
from without_comfyui import COMFYUI

LEAVES = {"block_slots", "boundaries", "checkpoints", "errors", "faces", "geometry", "packages", "progress", "shapes"}
MODEL_CODE = {"comfy", "comfy_config", "comfy_execution", "comfy_extras"}
SOME_NODES_NEED = {"cv2", "insightface", "onnxruntime", "scipy"}
MAY_IMPORT_MODEL_CODE = ("fpga_core/patching/", "fpga_core/training/comfy/", "nodes/", "commands/")
COMPOSING = {"patching", "training"}
TRAINING_ROOMS = ("data", "method", "engine", "comfy")
ROOMS = {
    "fpga_core": {"fpga_core"},
    "nodes": {"fpga_core", "nodes"},
    "commands": {"commands", "fpga_core"},
    "laboratory": {"commands", "devtools", "fpga_core", "laboratory"},
    "devtools": {"commands", "devtools", "fpga_core", "laboratory", "tests"},
    "benches": {"benches", "commands", "devtools", "fpga_core", "laboratory", "tests"},
}
"""Top-level folder -> the folders of the project that it may import. Tests may import everything."""

PACK = [file for file in PYTHON if name(file).split("/")[0] in ("fpga_core", "nodes", "commands")]
"""What users get."""

MAX_LINES = {"tests": 600}
MAX_LINES_ELSEWHERE = 400
MACHINE_PATHS = re.compile(r"/work/|/tmp/|/farm/|\.\./shared|/home/\w+/|[A-Z]:\\\\Users\\\\")
IMPORT_ALL_PURE = """
import importlib, runpy, sys
sys.path.insert(0, "tests/support")
from without_comfyui import refuse_comfyui
refuse_comfyui()
runpy.run_path("devtools/launch.py")["register_pack"]()
from sources import PURE, module_of
for module in sorted(map(module_of, PURE)):
    importlib.import_module(".".join(("fpga", *module)))
print(len(PURE))
"""


def violations(files: list[Path], is_wrong: Callable[[Path, Module], bool]) -> list[str]:
    return [
        f"{name(file)}:{line} imports {'.'.join(module)}"
        for file in files
        for line, module in imports(file)
        if is_wrong(file, module)
    ]


def absolute_imports(node: ast.AST) -> list[str]:
    """Returns the modules that one statement imports, by their full names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def room(file: Path) -> str:
    return name(file).split("/")[0]


def topic(file: Path) -> str:
    """The folder or module below fpga_core."""
    return name(file).split("/")[1].removesuffix(".py")


def test_the_rules_see_the_pack():
    """A contract over an empty list of files would hold whatever happens."""
    assert {"fpga_core/errors.py", "fpga_core/geometry.py", "nodes/__init__.py"} <= {name(file) for file in PACK}
    assert ROOMS.keys() | {"tests"} == {room(file) for file in PYTHON if file.parent != ROOT}
    patching = [file for file in PACK if name(file).startswith("fpga_core/patching/")]
    assert any(module[0] == "comfy" for file in patching for _, module in imports(file))
    assert any(module == ("fpga_core", "geometry") for file in PACK for _, module in imports(file))
    assert len(PURE) > 60 and not any("patching" in name(file) for file in PURE)


def test_rooms_import_only_those_below_them():
    def is_wrong(file: Path, module: Module) -> bool:
        return module[0] in {*ROOMS, "tests"} - ROOMS[room(file)] and module != ("nodes",)

    assert violations([file for file in PYTHON if room(file) in ROOMS], is_wrong) == []


def test_only_what_works_on_models_imports_comfyui():
    def is_wrong(file: Path, module: Module) -> bool:
        return module[0] in MODEL_CODE and not name(file).startswith(MAY_IMPORT_MODEL_CODE)

    assert violations(PACK, is_wrong) == []


def test_only_nodes_import_sockets_and_folders():
    def is_wrong(file: Path, module: Module) -> bool:
        return module[0] in COMFYUI - MODEL_CODE - {"nodes"} or module == ("nodes",)

    assert violations([file for file in PACK if room(file) != "nodes"], is_wrong) == []


def test_packages_that_only_some_nodes_need_are_imported_where_they_are_used():
    """If it were imported at the top of a file, one missing package would break all nodes."""
    at_the_top = [
        f"{name(file)}:{node.lineno}"
        for file in PACK
        for node in parsed(file).body
        for module in absolute_imports(node)
        if module.split(".")[0] in SOME_NODES_NEED
    ]
    assert at_the_top == []


def test_topic_packages_import_only_leaves_and_themselves():
    def is_wrong(file: Path, module: Module) -> bool:
        return module[0] == "fpga_core" and len(module) > 1 and module[1] not in LEAVES | {topic(file)}

    topics = [file for file in CORE if name(file) != "fpga_core/__init__.py" and topic(file) not in COMPOSING]
    assert violations(topics, is_wrong) == []


def test_training_rooms_import_only_those_before_them():
    def rank(room: str) -> int:
        return TRAINING_ROOMS.index(room) if room in TRAINING_ROOMS else -1

    def is_wrong(file: Path, module: Module) -> bool:
        return module[:2] == ("fpga_core", "training") and rank(module[2]) > rank(file.parent.name)

    rooms = [file for file in CORE if file.parent.parent == ROOT / "fpga_core" / "training"]
    assert {file.parent.name for file in rooms} == set(TRAINING_ROOMS)
    assert violations(rooms, is_wrong) == []


def test_the_pure_core_imports_only_itself():
    """This also holds for everything that it imports in turn."""
    files = {name(file) for file in PURE}

    def is_wrong(file: Path, module: Module) -> bool:
        path = "/".join(module)
        return module[0] == "fpga_core" and not {f"{path}.py", f"{path}/__init__.py"} & files

    assert violations(PURE, is_wrong) == []


def test_the_pure_core_loads_where_comfyui_cannot_be_imported():
    """Imports every module of it, in a separate process."""
    process = subprocess.run([sys.executable, "-c", IMPORT_ALL_PURE], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout == f"{len(PURE)}\n"


def test_the_pack_imports_itself_relatively():
    """An absolute import would find another package of that name, or ComfyUI's own `nodes`."""
    own = {"commands", "fpga", "fpga_core", "fpga_portrait", "nodes"}
    absolute = [
        f"{name(file)}:{node.lineno}"
        for file in PACK
        for node in ast.walk(parsed(file))
        for module in absolute_imports(node)
        if module.split(".")[0] in own
    ]
    assert absolute == []


def test_the_root_imports_nothing_at_the_top():
    """A relative import there breaks pytest, and an absolute one would make importing the pack need ComfyUI."""
    body = parsed(ROOT / "__init__.py").body
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("file", PYTHON, ids=name)
def test_files_stay_readable(file):
    limit = MAX_LINES.get(room(file), MAX_LINES_ELSEWHERE)
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
