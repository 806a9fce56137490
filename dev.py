"""Everything that a developer runs, in one file that needs only Python.

    python dev.py test [pytest arguments]      all tests, or the chosen ones
    python dev.py demo                         shipped workflows on the small world's models, and a sheet of pictures
    python dev.py demo photographs             all shipped workflows on real photographs and random weights
    python dev.py serve [ComfyUI arguments]    the editor with the pack loaded
    python dev.py bench [NAME] [--json FILE]   one measurement as a table; without a name, the list of them
    python dev.py lint                         ruff and pyright
    python dev.py world train [STAGE ...]      the small world's models, by recipe; resumable
    python dev.py world evaluate [TABLE ...]   the paper's tables, measured on the small world
    python dev.py workflows                    the editor's form of workflows/api/*.json, written by the editor
    python dev.py thumbnails                   the pictures of the template browser, made on the small world

The first run builds a virtual environment and gets a ComfyUI, both kept in a cache; COMFYUI_PATH names another ComfyUI.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

if sys.version_info < (3, 10):  # noqa: UP036 - said before a newer syntax fails on an older Python
    sys.exit(f"dev.py needs Python 3.10 or newer, but this is {sys.version.split()[0]}: run it with a newer one")

from devtools.environment import ROOT, Environment, cache_folder, prepare
from devtools.progress import StepError


def launch(environment: Environment, module: str, arguments: list[str]) -> int:
    """Runs a module with the pack importable as `fpga`."""
    return run(environment, ["devtools/launch.py", module, *arguments])


def run(environment: Environment, arguments: list[str]) -> int:
    """Runs the environment's Python from the pack's root and returns its exit status.

    Bytecode is kept beside the environment even if the user wants none in the checkout. Without it, each program would
    spend seconds compiling torch again.
    """
    variables = {**environment.variables, "PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode")}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen([environment.python, *arguments], cwd=ROOT, env=variables)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the program was interrupted too, and ends by itself
        except SystemExit:
            process.terminate()
            raise


def test(environment: Environment, arguments: list[str]) -> int:
    """Runs the chosen tests, or all: the core without ComfyUI, then the others, then those with a server."""
    if arguments:
        return launch(environment, "pytest", arguments)
    workers = str(min(os.cpu_count() or 1, 4))
    one_thread = replace(
        environment, variables={**environment.variables, "OMP_NUM_THREADS": "1"}
    )  # one worker per core
    parts = [
        ("tests/core", one_thread, ["-n", workers, "tests/core"]),
        ("tests without a server", one_thread, ["-n", workers, *WITHOUT_SERVER]),
        ("tests with a server", environment, [*WITH_SERVER]),
    ]
    for title, environment_of_part, chosen in parts:
        began = time.monotonic()
        status = launch(environment_of_part, "pytest", chosen)
        print(f"{title}: {time.monotonic() - began:.0f} s", flush=True)
        if status:
            return status
    return 0


def lint(environment: Environment, arguments: list[str]) -> int:
    if arguments:
        sys.exit("dev.py lint takes no arguments, because it checks the whole project")
    return max(
        run(environment, ["-m", "ruff", "check", "."]),
        run(environment, ["-m", "ruff", "format", "--check", "."]),
        run(environment, ["-m", "basedpyright", "--pythonpath", str(environment.python)]),
    )


WITHOUT_SERVER = ("tests/contract", "tests/patching", "tests/slow", "tests/gpu")
WITH_SERVER = ("tests/host", "tests/browser")
COMMANDS = {
    "test": test,
    "demo": lambda environment, arguments: launch(environment, "fpga.devtools.demo", arguments),
    "serve": lambda environment, arguments: launch(environment, "fpga.devtools.serve", arguments),
    "bench": lambda environment, arguments: launch(environment, "fpga.devtools.bench", arguments),
    "lint": lint,
    "world": lambda environment, arguments: launch(environment, "fpga.laboratory.world", arguments),
    "workflows": lambda environment, arguments: launch(environment, "fpga.devtools.editor_workflows", arguments),
    "thumbnails": lambda environment, arguments: launch(environment, "fpga.devtools.thumbnails", arguments),
}


def main() -> int:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        return 0
    if command not in COMMANDS:
        sys.exit(f"dev.py has no command {command!r}; choose one of {', '.join(COMMANDS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return COMMANDS[command](prepare(), arguments)
    except StepError as error:
        sys.exit(f"dev.py {command}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"dev.py {command}: interrupted; run it again to resume")


if __name__ == "__main__":
    sys.exit(main())
