"""Finds the ComfyUI that a subcommand works with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..fpga_core.errors import MissingPackageError

PACK = Path(__file__).absolute().parent.parent
"""The pack's folder without resolving links, because a linked pack belongs to the ComfyUI that contains the link."""

VARIABLE = "COMFYUI_PATH"


def comfyui_folder(pack: Path = PACK) -> Path:
    """Returns the folder that COMFYUI_PATH names, or the ComfyUI whose `custom_nodes` contains the pack.

    Raises:
        MissingPackageError: there is no ComfyUI in either place.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not _is_comfyui(Path(named)):
            raise MissingPackageError(f"{VARIABLE} is {named}, which is not a ComfyUI folder: it has no comfy/sd.py")
        return Path(named).absolute()
    if pack.parent.name == "custom_nodes" and _is_comfyui(pack.parent.parent):
        return pack.parent.parent
    raise MissingPackageError(
        f"ComfyUI was not found: {pack} is not in the custom_nodes folder of one; set {VARIABLE} to ComfyUI's folder"
    )


def import_comfyui() -> None:
    """Puts ComfyUI on `sys.path`, and tells it to use the CPU if torch sees no GPU.

    Raises:
        MissingPackageError: see `comfyui_folder`.
    """
    folder = str(comfyui_folder())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()


def _is_comfyui(folder: Path) -> bool:
    return (folder / "comfy" / "sd.py").is_file()
