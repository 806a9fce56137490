"""Writes RepControlNet files in the pack's own layout, which docs/formats.md specifies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..checkpoints import hash_state_dict, write_safetensors
from ..errors import InvalidInputError
from .branch import RepControlNet, recognise_base
from .hint_encoder import hint_encoder_widths
from .layouts import BRANCH_PREFIX, CONTENTS_BRANCH, CONTENTS_HINT_ENCODER, FORMAT, HINT_ENCODER_PREFIX


def as_file_contents(branch: RepControlNet) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the header of the file that `layouts.read_repcontrolnet` reads as this branch.

    Args:
        branch: with an empty `weights`, only the hint encoder is written.
    Returns:
        The tensors by the file's names, and the text entries of its header.
    Raises:
        InvalidInputError: the branch's header does not match its weights.
        CheckpointKeyError, CheckpointShapeError: the hint encoder's tensors are not those of one.
    """
    header = branch.header
    hint_encoder_widths(branch.hint_encoder, branch.name)
    if branch.weights:
        base = recognise_base({name: weight.shape for name, weight in branch.weights.items()})
        if (base, hash_state_dict(branch.weights)) != (header.base, header.branch_hash):
            raise InvalidInputError(
                f"the header of '{branch.name}' ({header.base}, {header.branch_hash[:12]}) does not match its weights "
                f"({base}); create a changed branch with RepControlNet.from_weights"
            )
    tensors = _prefixed(BRANCH_PREFIX, branch.weights) | _prefixed(HINT_ENCODER_PREFIX, branch.hint_encoder)
    return tensors, FORMAT.header(
        contents=CONTENTS_BRANCH if branch.weights else CONTENTS_HINT_ENCODER,
        base=header.base,
        conditions=json.dumps(header.conditions),
        trained_on=header.trained_on,
        branch_hash=header.branch_hash,
        adapter_hash=hash_state_dict(branch.hint_encoder),
    )


def write_repcontrolnet(branch: RepControlNet, path: str | os.PathLike[str]) -> None:
    """Writes a branch, its hint encoder and its header as one safetensors file.

    Args:
        branch: the branch; reading the file gives the same tensors and header.
        path: the file; its folder exists.
    Raises:
        InvalidInputError, CheckpointKeyError, CheckpointShapeError: as in `as_file_contents`.
        CheckpointError: the file cannot be written.
    """
    write_safetensors(path, *as_file_contents(branch))


def write_hint_encoder(branch: RepControlNet, path: str | os.PathLike[str]) -> None:
    """Writes the hint encoder alone, for a model that has the branch folded in; the header names that branch.

    Args:
        branch: its weights are left out.
        path: the file; its folder exists.
    Raises:
        CheckpointKeyError, CheckpointShapeError: the hint encoder's tensors are not those of one.
        CheckpointError: the file cannot be written.
    """
    write_repcontrolnet(replace(branch, weights={}), path)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
