"""Writing RepControlNet files in the pack's own layout, which docs/formats.md specifies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from torch import Tensor

from ..checkpoints import hash_state_dict, write_safetensors
from ..errors import InvalidInputError
from .adapter import hint_widths
from .bases import recognise_base
from .branch import RepControlNet
from .layouts import ADAPTER_PREFIX, BRANCH_PREFIX, CONTENTS_ADAPTER, CONTENTS_BRANCH, FORMAT, VERSION


def as_state_dict(branch: RepControlNet) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of the file that `layouts.read_repcontrolnet` reads as this branch.

    Args:
        branch: with an empty `weights`, only the adapter is written.
    Returns:
        Tensors by the file's names, and the text entries of its header.
    Raises:
        InvalidInputError: the branch's header does not belong to its weights.
        CheckpointKeyError, CheckpointShapeError: the adapter is no hint encoder.
    """
    header = branch.header
    hint_widths(branch.adapter, branch.name)
    if branch.weights:
        base = recognise_base({name: weight.shape for name, weight in branch.weights.items()})
        if (base, hash_state_dict(branch.weights)) != (header.base, header.branch_hash):
            raise InvalidInputError(
                f"the header of '{branch.name}' ({header.base}, {header.branch_hash[:12]}) does not belong to its "
                f"weights ({base}); make a changed branch with RepControlNet.from_weights"
            )
    tensors = _prefixed(BRANCH_PREFIX, branch.weights) | _prefixed(ADAPTER_PREFIX, branch.adapter)
    return tensors, {
        "format": FORMAT,
        "version": str(VERSION),
        "contents": CONTENTS_BRANCH if branch.weights else CONTENTS_ADAPTER,
        "base": header.base,
        "conditions": json.dumps(header.conditions),
        "trained_on": header.trained_on,
        "branch_hash": header.branch_hash,
        "adapter_hash": hash_state_dict(branch.adapter),
    }


def write_repcontrolnet(branch: RepControlNet, path: str | os.PathLike[str]) -> None:
    """Writes a branch, its adapter and its header as one safetensors file.

    Args:
        branch: to be written; reading the file gives the same tensors and header.
        path: the file; its folder exists.
    Raises:
        InvalidInputError, CheckpointKeyError, CheckpointShapeError: as in `as_state_dict`.
        CheckpointError: the file cannot be written.
    """
    write_safetensors(path, *as_state_dict(branch))


def write_adapter(branch: RepControlNet, path: str | os.PathLike[str]) -> None:
    """Writes the adapter alone, for a model that has the branch folded in; its header names the branch by its hash.

    Args:
        branch: its weights are left out.
        path: the file; its folder exists.
    Raises:
        CheckpointKeyError, CheckpointShapeError: the adapter is no hint encoder.
        CheckpointError: the file cannot be written.
    """
    write_repcontrolnet(RepControlNet(branch.name, branch.header, {}, branch.adapter), path)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
