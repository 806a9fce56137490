"""Reads and writes identity files (docs/formats.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..boundaries import shortened
from ..checkpoints import FileFormat, check_hash, hash_state_dict, list_names, read_safetensors, write_safetensors
from ..errors import (
    CheckpointKeyError,
    CheckpointShapeError,
    InvalidInputError,
    ShapeMismatchError,
)
from .identity import Identity, PersonLora

FORMAT = FileFormat(name="fpga-identity", version=1, kind="an identity", entries=("name", "combine", "tensors_hash"))
PARTS = {"embedding": "embeddings", "clip_hidden": "clip_hidden", "clip_null": "clip_null"}
"""Prefix of a tensor's name -> attribute of `Identity`. The encoder's key follows after a dot."""

PICTURE, LORA = "picture", "person_lora"
"""Prefixes of reference pictures, whose number from 0 follows, and of a LoRA's tensors, whose own name follows."""


def save_identity(path: str | os.PathLike[str], identity: Identity) -> None:
    """Writes an identity.

    Args:
        path: the file; its folder exists.
        identity: the person.
    Raises:
        CheckpointError: the file cannot be written; one that was there before is unchanged.
    """
    tensors = identity_tensors(identity)
    tensors_hash = hash_state_dict(tensors)
    described = {"words": identity.words} if identity.words else {}
    if (lora := identity.lora) is not None:
        described |= {"lora": lora.name, "lora_strength": repr(lora.strength), "trigger_words": lora.trigger_words}
    header = FORMAT.header(name=identity.name, combine=identity.combine, tensors_hash=tensors_hash, **described)
    write_safetensors(path, tensors, header)


def identity_tensors(identity: Identity) -> dict[str, Tensor]:
    """Returns everything that is known of a person as tensors, under the names of the file."""
    encoded = {
        f"{part}.{key}": tensor
        for part, attribute in PARTS.items()
        for key, tensor in getattr(identity, attribute).items()
    }
    pictures = {f"{PICTURE}.{number}": picture for number, picture in enumerate(identity.pictures)}
    lora: Mapping[str, Tensor] = {} if identity.lora is None else identity.lora.weights
    return {**encoded, **pictures, **{f"{LORA}.{name}": tensor for name, tensor in lora.items()}}


def load_identity(path: str | os.PathLike[str]) -> Identity:
    """Reads an identity.

    Args:
        path: the file.
    Returns:
        The identity, exactly as it was saved.
    Raises:
        CheckpointReadError: the file cannot be read, or its tensors are not those that were saved.
        UnknownFormatError: the file is not an identity, or of a newer version.
        CheckpointKeyError: tensors are missing or do not belong.
        CheckpointShapeError: its tensors do not fit together.
    """
    file = Path(path).name
    tensors, header = read_safetensors(path)
    FORMAT.check_header(file, header)
    if stray := [name for name in tensors if name.partition(".")[0] not in (*PARTS, PICTURE, LORA)]:
        raise CheckpointKeyError(
            f"'{file}' holds tensors that are not part of an identity: {list_names(stray)}; choose a file that Save "
            "Identity has written"
        )
    check_hash(file, tensors, header["tensors_hash"])
    parts: dict[str, Mapping[str, Tensor]] = {attribute: _part(tensors, part) for part, attribute in PARTS.items()}
    pictures = _part(tensors, PICTURE)
    try:
        return Identity(
            name=header["name"],
            combine=header["combine"],
            pictures=tuple(pictures[number] for number in sorted(pictures, key=int)),
            lora=_read_lora(tensors, header),
            words=header.get("words", ""),
            **parts,
        )
    except ShapeMismatchError as error:
        raise CheckpointShapeError(f"'{file}': {error}") from error
    except InvalidInputError as error:
        raise CheckpointKeyError(f"'{file}': {error}") from error
    except ValueError as error:
        raise CheckpointKeyError(
            f"save the identity again: '{file}' has a picture without a number, or a LoRA strength that is not one "
            f"({shortened(str(error))})"
        ) from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _read_lora(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> PersonLora | None:
    if "lora" not in header:
        return None
    strength, trigger_words = float(header.get("lora_strength", "1")), header.get("trigger_words", "")
    return PersonLora(header["lora"], _part(tensors, LORA), strength, trigger_words)
