"""`dev.py world train [STAGE ...]` and `dev.py world evaluate restoration`: what can be done with the small world."""

from __future__ import annotations

import sys

from ...devtools.launch import import_comfyui
from . import train
from .shipped import BRANCH, IDENTITY_ADAPTER


def evaluate(arguments: list[str]) -> None:
    """Prints the table of a laboratory."""
    if arguments != ["restoration"]:
        sys.exit("dev.py world evaluate: choose one of restoration")
    if missing := [file.name for file in (BRANCH, IDENTITY_ADAPTER) if not file.exists()]:
        sys.exit(
            f"dev.py world evaluate: {' and '.join(missing)} are not there yet; train them with `dev.py world train`"
        )
    import_comfyui()
    import torch

    from .restoration_lab import evaluate

    with torch.inference_mode():
        rows = evaluate()
    for row in rows:
        print("  ".join(f"{name}: {value}" for name, value in row.items()))


COMMANDS = {"train": train.main, "evaluate": evaluate}


def main(command: str | None = None, *arguments: str) -> None:
    if command not in COMMANDS:
        sys.exit(f"dev.py world: choose one of {', '.join(COMMANDS)}, for instance `dev.py world train`")
    COMMANDS[command](list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
