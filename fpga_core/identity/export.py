"""Reads and writes the pack's own identity adapter file, the "FPGA identity adapter" of docs/formats.md.

The file holds a resampler. Its tokens share the key/value projections of the text, unless the file has its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..boundaries import shortened
from ..checkpoints import FileFormat, check_hash, check_keys, hash_state_dict, write_safetensors
from ..errors import (
    BaseModelError,
    CheckpointKeyError,
    CheckpointShapeError,
    InvalidInputError,
    UnknownFormatError,
)
from .adapters import IdentityAdapter, Negative
from .attention_layouts import KNOWN_LAYOUTS
from .own_projections import PROJECTIONS, projection_tensors, read_projections
from .recipes import AdapterKind
from .resampler import FacePlusProjection, FaceProjection
from .resampler_loading import load_face_projection

FORMAT = FileFormat(
    name="fpga-identity-adapter",
    version=1,
    kind="an FPGA identity adapter",
    entries=("base", "negative", "recogniser", "clip_model", "branch_hash", "tensors_hash"),
)
NETWORK = "resampler."
NULL = "null_tokens"
NEGATIVES = (Negative.TRAINED_NULL, Negative.SAME_TOKENS)


def write_fpga_adapter(adapter: IdentityAdapter, path: str | os.PathLike[str]) -> None:
    """Writes an adapter of kind FPGA as one safetensors file.

    Args:
        adapter: the adapter; reading the file gives the same tensors and header.
        path: the file; its folder exists.
    Raises:
        InvalidInputError: the format cannot hold this adapter.
        CheckpointError: the file cannot be written.
    """
    write_safetensors(path, *fpga_adapter_contents(adapter))


def fpga_adapter_contents(adapter: IdentityAdapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the header of the file that `read_fpga_adapter` reads as this adapter.

    Raises:
        InvalidInputError: the format cannot hold this adapter.
    """
    check_fpga_adapter(adapter)
    tensors = {NETWORK + key: tensor for key, tensor in adapter.resampler.state_dict().items()}
    if adapter.null is not None:
        tensors[NULL] = adapter.null
    if adapter.projections is not None:
        tensors |= projection_tensors(adapter.projections)
    return tensors, FORMAT.header(
        base=adapter.base,
        negative=adapter.negative.value,
        recogniser=adapter.recogniser or "",
        clip_model=adapter.clip_model or "",
        branch_hash=adapter.branch_hash or "",
        tensors_hash=hash_state_dict(tensors),
    )


def check_fpga_adapter(adapter: IdentityAdapter) -> None:
    """Raises unless the FPGA format can hold an adapter.

    Raises:
        InvalidInputError: it is of a different kind, or its parts do not fit together.
    """
    reads_clip = isinstance(adapter.resampler, FacePlusProjection)
    null_shape = None if adapter.null is None else tuple(adapter.null.shape)
    faults = {
        f"it is {adapter.kind.value}, not FPGA": adapter.kind is not AdapterKind.FPGA,
        "its resampler is not a face projection": not isinstance(adapter.resampler, FaceProjection),
        "it has its own LoRA": adapter.lora is not None,
        "it has its own projections, but they are all missing": adapter.projections == {},
        f"its tokens are {adapter.token_dim} wide, which does not fit {adapter.base}": not _fits_base(
            adapter.base, adapter.token_dim
        ),
        f"its negative is '{adapter.negative.value}'": adapter.negative not in NEGATIVES,
        f"its null tokens are {null_shape}": null_shape
        != ((1, adapter.num_tokens, adapter.token_dim) if adapter.negative is Negative.TRAINED_NULL else None),
        "it does not name its recogniser": not adapter.recogniser,
        "it names a CLIP-Vision model but its resampler reads none, or the other way round": reads_clip
        != bool(adapter.clip_model),
        "its structure strength is not 1": adapter.structure_strength != 1,
    }
    if found := [fault for fault, is_so in faults.items() if is_so]:
        raise InvalidInputError(
            f"the adapter '{adapter.name}' cannot be saved as an FPGA identity adapter: {'; '.join(found)}; see "
            "docs/formats.md for what the file must hold"
        )


def is_fpga_adapter(state: Mapping[str, Any], metadata: Mapping[str, str]) -> bool:
    """Returns whether a file is, or should be, an FPGA identity adapter."""
    return metadata.get("format") == FORMAT.name or any(str(key).startswith(NETWORK) for key in state)


def read_fpga_adapter(state: Mapping[str, Any], metadata: Mapping[str, str], name: str) -> IdentityAdapter:
    """Reads an FPGA identity adapter.

    Args:
        state: the file's tensors.
        metadata: text entries of its header.
        name: the file's name in messages.
    Returns:
        The adapter; its tensors are those of `state`.
    Raises:
        UnknownFormatError: the header is missing, damaged, or of a newer version.
        CheckpointKeyError, CheckpointShapeError: tensors are missing, do not belong, or have a wrong shape.
        CheckpointReadError: the tensors have changed since the file was written.
        BaseModelError: the header names a different base from the one that the tensors show.
    """
    negative = _check_header(metadata, name)
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise UnknownFormatError(f"'{key}' in '{name}' is not a floating-point tensor; the file is damaged")
    network = {key.removeprefix(NETWORK): tensor for key, tensor in state.items() if key.startswith(NETWORK)}
    own = {key: tensor for key, tensor in state.items() if key.startswith(PROJECTIONS)}
    others = [NULL] if negative is Negative.TRAINED_NULL else []
    check_keys(name, [key for key in state if not key.startswith((NETWORK, PROJECTIONS))], others)
    resampler = load_face_projection(network, name, NETWORK)
    if not _fits_base(metadata["base"], resampler.token_dim):
        raise BaseModelError(
            f"the header of '{name}' says it is for {metadata['base']}, but its tokens are {resampler.token_dim} wide; "
            "the file is damaged or was written by another program"
        )
    projections = read_projections(own, resampler.token_dim, name)
    null = state.get(NULL)
    if null is not None and null.shape != (1, resampler.num_tokens, resampler.token_dim):
        raise CheckpointShapeError(
            f"'{NULL}' in '{name}' is {tuple(null.shape)}, but its resampler makes (1, {resampler.num_tokens}, "
            f"{resampler.token_dim}); the file is damaged"
        )
    if isinstance(resampler, FacePlusProjection) != bool(metadata["clip_model"]):
        raise CheckpointKeyError(
            f"the header of '{name}' names the CLIP-Vision model '{metadata['clip_model']}', which does not fit its "
            "tensors; the file is damaged"
        )
    check_hash(name, state, metadata["tensors_hash"])
    return IdentityAdapter(
        name=name,
        kind=AdapterKind.FPGA,
        base=metadata["base"],
        resampler=resampler,
        projections=projections,
        branch_hash=metadata["branch_hash"] or None,
        recogniser=metadata["recogniser"],
        clip_model=metadata["clip_model"] or None,
        negative=negative,
        null=null,
    )


def _check_header(metadata: Mapping[str, str], name: str) -> Negative:
    FORMAT.check_header(name, metadata)
    if not metadata["recogniser"]:
        raise UnknownFormatError(f"the header of '{name}' does not name a recogniser; the file is damaged")
    if metadata["negative"] not in [negative.value for negative in NEGATIVES]:
        raise UnknownFormatError(
            f"the header of '{name}' says that the negative carries '{shortened(metadata['negative'])}', but only "
            f"{', '.join(negative.value for negative in NEGATIVES)} are known; the file is damaged or newer than "
            "this pack"
        )
    return Negative(metadata["negative"])


def _fits_base(base: str, token_dim: int) -> bool:
    """Whether a base has a context of that width, or is not a known one."""
    return all(layout.token_dim == token_dim for layout in KNOWN_LAYOUTS if layout.base == base)
