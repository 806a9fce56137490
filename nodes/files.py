"""Weights files in ComfyUI's model folders."""

import os

import comfy.utils
import folder_paths
import torch

from ..fpga_core.checkpoints import read_safetensors
from ..fpga_core.errors import CheckpointReadError

Weights = tuple[dict[str, torch.Tensor], dict[str, str]]


def load_weights(folder: str, name: str) -> Weights:
    """Tensors and metadata of a file in one of ComfyUI's model folders; pickles (.bin, .pt, .ckpt) through the host's safe loader only."""
    path = folder_paths.get_full_path_or_raise(folder, name)
    if path.endswith(".safetensors"):
        return read_safetensors(path)
    try:
        return comfy.utils.load_torch_file(path, safe_load=True), {}
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, ArithmeticError) as error:
        raise CheckpointReadError(f"'{name}' cannot be read: {error}; download it again") from error


def modified_at(folder: str, name: str) -> float:
    """When a file last changed: a node that loads it runs again after it was replaced."""
    return os.path.getmtime(folder_paths.get_full_path_or_raise(folder, name))
