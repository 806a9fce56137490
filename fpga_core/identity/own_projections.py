"""The tensors of an FPGA identity adapter's own key and value projections in its file, if it has any."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ..block_slots import BlockSlot
from ..checkpoints import check_keys
from ..errors import CheckpointKeyError, CheckpointShapeError
from .people import KeyValue

PROJECTIONS = "projections."
NAME = re.compile(
    r"projections\.(?:(input|output)_blocks\.(\d{1,3})|(middle)_block)\.1\.transformer_blocks\.(\d{1,3})"
    r"\.attn2\.to_([kv])\.weight"
)


def projection_tensors(projections: Mapping[BlockSlot, KeyValue]) -> dict[str, Tensor]:
    """Returns the projections by their tensor names in the file."""
    return {
        f"{PROJECTIONS}{slot.module_path}.attn2.to_{letter}.weight": weight
        for slot, key_value in projections.items()
        for letter, weight in zip("kv", key_value, strict=True)
    }


def read_projections(tensors: Mapping[str, Tensor], token_dim: int, name: str) -> dict[BlockSlot, KeyValue] | None:
    """Reads an adapter's own projections.

    Args:
        tensors: the file's tensors whose names begin with `PROJECTIONS`.
        token_dim: width of the tokens.
        name: the file's name in messages.
    Returns:
        The projections of each layer; None if there are none: the model's own are shared.
    Raises:
        CheckpointKeyError: a name does not belong to a layer, or a layer has only one of its two projections.
        CheckpointShapeError: a projection does not read the tokens, or is not as wide as the other one.
    """
    slots = {key: _slot(key, name) for key in tensors}
    expected = {
        f"{PROJECTIONS}{slot.module_path}.attn2.to_{letter}.weight" for slot in slots.values() for letter in "kv"
    }
    check_keys(name, tensors, expected)
    projections: dict[BlockSlot, KeyValue] = {}
    for slot in dict.fromkeys(slots.values()):
        path = f"{PROJECTIONS}{slot.module_path}.attn2."
        key, value = (tensors[f"{path}to_{letter}.weight"] for letter in "kv")
        if key.ndim != 2 or key.shape != value.shape or key.shape[1] != token_dim:
            raise CheckpointShapeError(
                f"'{path}to_k.weight' in '{name}' is {tuple(key.shape)} and to_v is {tuple(value.shape)}, but its "
                f"tokens need (width, {token_dim}) for both; the file is damaged"
            )
        projections[slot] = KeyValue(key, value)
    return projections or None


def _slot(key: str, name: str) -> BlockSlot:
    match = NAME.fullmatch(key)
    if match is None:
        raise CheckpointKeyError(f"'{key}' in '{name}' does not belong to any layer of a UNet; the file is damaged")
    return BlockSlot(match[1] or match[3], int(match[2] or 0), int(match[4]))
