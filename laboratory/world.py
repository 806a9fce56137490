"""`dev.py world train [STAGE ...]` and `dev.py world evaluate TABLE ...`: train and measure the small world."""

from __future__ import annotations

import sys
from importlib import import_module

from ..commands.comfyui import import_comfyui
from . import train
from .shipped import BRANCH, IDENTITY_ADAPTER

TABLES = {
    "training": ("training_lab", "evaluate_training"),
    "portraits": ("generation_lab", "evaluate_portraits"),
    "attention": ("attention_lab", "evaluate_attention"),
    "groups": ("generation_lab", "evaluate_groups"),
    "conditions": ("generation_lab", "evaluate_conditions"),
    "weights": ("generation_lab", "evaluate_weights"),
    "choice": ("restoration_tables", "evaluate_choice"),
    "full-body": ("restoration_tables", "evaluate_full_body"),
    "restoration": ("restoration_tables", "evaluate_restoration"),
    "speed": ("speed_lab", "evaluate_speed"),
    "deepcache": ("deepcache_lab", "evaluate_deepcache"),
}
"""For each table, the module and the function that measure it and return it as Markdown."""


def evaluate(arguments: list[str]) -> None:
    """Prints tables of the laboratory, or all of them if none is named."""
    if unknown := [name for name in arguments if name not in TABLES]:
        sys.exit(f"dev.py world evaluate: there is no table {unknown[0]!r}; choose from {', '.join(TABLES)}")
    if missing := [file.name for file in (BRANCH, IDENTITY_ADAPTER) if not file.exists()]:
        sys.exit(
            f"dev.py world evaluate: {' and '.join(missing)} are not trained yet; train them with `dev.py world train`"
        )
    import_comfyui()
    import torch

    for name in arguments or TABLES:
        module, function = TABLES[name]
        with torch.inference_mode():
            table = getattr(import_module(f".{module}", __package__), function)(train.work_folder())
        print(f"\n{name}\n\n{table}\n", flush=True)


COMMANDS = {"train": train.main, "evaluate": evaluate}


def main(command: str | None = None, *arguments: str) -> None:
    if command not in COMMANDS:
        sys.exit(f"dev.py world: choose one of {', '.join(COMMANDS)}, for instance `dev.py world train`")
    COMMANDS[command](list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
