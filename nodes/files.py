"""Weights files in ComfyUI's model folders."""

import os
import pickle

import comfy.utils
import folder_paths
import torch

from ..fpga_core.boundaries import guarded
from ..fpga_core.checkpoints import is_safetensors, read_safetensors
from ..fpga_core.errors import CheckpointReadError

Weights = tuple[dict[str, torch.Tensor], dict[str, str]]


def load_weights(folder: str, name: str) -> Weights:
    """Reads the tensors and metadata of a file in a model folder.

    Pickles (.bin, .pt, .ckpt) go through the host's safe loader only.
    """
    path = folder_paths.get_full_path_or_raise(folder, name)
    if is_safetensors(path):
        return read_safetensors(path)
    with guarded(CheckpointReadError, f"'{name}' cannot be read", advice="download it again"):
        try:
            weights = comfy.utils.load_torch_file(path, safe_load=True)
        except pickle.UnpicklingError as error:  # whose message advises the user to turn off safe loading
            raise CheckpointReadError(
                f"'{name}' is not a weights file, or holds more than tensors, which can be harmful; download it again "
                "from its publisher"
            ) from error
    if not isinstance(weights, dict):
        raise CheckpointReadError(
            f"'{name}' holds a {type(weights).__name__} instead of named tensors; download it again"
        )
    return weights, {}


def modified_at(folder: str, name: str) -> float:
    """When a file last changed, or 0 if it is not there. A node that loads the file runs again after it is replaced."""
    path = folder_paths.get_full_path(folder, name)
    return os.path.getmtime(path) if path else 0.0
