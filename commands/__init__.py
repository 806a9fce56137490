"""The console command `fpga-portrait`, for tasks that belong in a terminal and not in a graph.

Each subcommand is a module of this package whose `main(arguments)` returns the exit status. It is imported when it is
called, so that `--help` needs neither torch nor ComfyUI.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from .. import __version__
from ..fpga_core.errors import FPGAError

PROGRAM = "fpga-portrait"
SUBCOMMANDS = {
    "train": "train a RepControlNet, an identity or a ControlNet on a folder of data",
    "queue": "make the pictures of a table on one or many ComfyUI servers",
    "dataset": "build, check and review training sets from folders, tables and shards of pictures",
    "evaluate": "score the pictures of several methods, and compare them",
}
"""The name of each subcommand, which is that of its module, and what it does."""

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: an error that a message explains, an invalid command line, and Ctrl-C or SIGTERM."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fpga-portrait ARGUMENTS`, by default with those of the process, and returns the exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in SUBCOMMANDS:
        print(f"{PROGRAM} has no command {name!r}; choose one of {', '.join(SUBCOMMANDS)}", file=sys.stderr)
        return MISUSED
    try:
        return import_module(f".{name}", __name__).main(rest)
    except FPGAError as error:
        print(f"{PROGRAM} {name}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{PROGRAM} {name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def overview() -> str:
    width = max(map(len, SUBCOMMANDS))
    commands = [f"  {name:<{width}}  {summary}" for name, summary in SUBCOMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [options]",
            "",
            *commands,
            "",
            f"`{PROGRAM} COMMAND --help` lists the options of a command; `{PROGRAM} --version` prints the version.",
        ]
    )
