"""The rules of the code: short nodes, calls that name their arguments, no swallowed errors, few `fmt: skip`."""

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sources import CORE, PYTHON, name, parsed

NODES = [file for file in PYTHON if name(file).startswith("nodes/")]
MAX_STATEMENTS_IN_EXECUTE = 5
MAX_POSITIONAL_ARGUMENTS = 5
MAX_POSITIONAL_PARAMETERS = 3
MAX_FMT_SKIP = 10

CALLED_BY_OTHERS = {
    "apply_model",
    "diffusion_model",
    "forward",
    "get_control",
    "host_attention",
    "predict_noise",
    "redirect_request",
}
"""Functions whose parameters ComfyUI, torch or urllib prescribes."""

CATCHES_EVERYTHING = {
    "__init__.py": 1,  # ComfyUI would swallow the traceback of a pack that does not load
    "devtools/progress.py": 1,  # ends the program that it started, whatever happened
    "fpga_core/boundaries.py": 1,  # the boundary with libraries that raise anything
    "fpga_core/training/engine/loop.py": 1,  # saves the state before the error goes on
    "tests/support/mutations.py": 1,  # an error that is not the pack's is what it looks for
    "tests/support/without_packages.py": 1,  # the error is what it reports
}
"""File -> number of places that catch every error, and why they may."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST) -> Iterator[tuple[Function, bool]]:
    """The functions of a module and the methods of its classes, with whether it is a method; none inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child, isinstance(node, ast.ClassDef)
        elif not isinstance(child, ast.expr):
            yield from functions(child)


def number_of_statements(function: Function) -> int:
    """Returns the statements of a function's body, including nested ones, without the docstring."""
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    return len(statements) - 1 - (ast.get_docstring(function) is not None)


def positional_parameters(function: Function, is_method: bool) -> list[str]:
    """Returns the names of the parameters that can be passed by position, except `self` and `cls`."""
    found = [parameter.arg for parameter in (*function.args.posonlyargs, *function.args.args)]
    is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    return found[1:] if is_method and not is_static else found


def is_public(function: Function) -> bool:
    return not function.name.startswith("_") or function.name == "__init__"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    return handler.type is None or bool(names & {"Exception", "BaseException"})


def test_execute_has_one_to_five_statements():
    """A statement counts once, over however many lines the formatter spreads it, and so does each one inside it."""
    executes = [
        (file, function) for file in NODES for function, _ in functions(parsed(file)) if function.name == "execute"
    ]
    assert len(executes) > 20
    too_long = [
        f"{name(file)}:{function.lineno}"
        for file, function in executes
        if number_of_statements(function) > MAX_STATEMENTS_IN_EXECUTE
    ]
    assert too_long == []


def test_calls_name_their_arguments():
    """Calls with more than five unnamed arguments are hard to read."""
    calls = [
        f"{name(file)}:{node.lineno} {ast.unparse(node.func)}"
        for file in (*CORE, *NODES)
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call) and len(node.args) > MAX_POSITIONAL_ARGUMENTS
    ]
    assert calls == []


def test_public_functions_take_at_most_three_arguments_without_their_names():
    found = [
        f"{name(file)}:{function.lineno} {function.name}"
        for file in CORE
        for function, is_method in functions(parsed(file))
        if is_public(function) and function.name not in CALLED_BY_OTHERS
        if len(positional_parameters(function, is_method)) > MAX_POSITIONAL_PARAMETERS
    ]
    assert found == []


def test_errors_are_caught_by_name():
    found = Counter(
        name(file)
        for file in PYTHON
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    )
    assert found == CATCHES_EVERYTHING


def test_few_lines_are_kept_from_the_formatter():
    skips = Counter({name(file): number_of_skips(file) for file in PYTHON})
    assert skips.total() <= MAX_FMT_SKIP, +skips


def number_of_skips(file: Path) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline)
    return sum(token.type == tokenize.COMMENT and token.string.startswith("# fmt: skip") for token in tokens)
