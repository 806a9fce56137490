"""Reading, checking, hashing and writing of weights files (safetensors)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .boundaries import guarded, shortened, written_whole
from .errors import (
    CheckpointError,
    CheckpointKeyError,
    CheckpointReadError,
    CheckpointShapeError,
    UnknownFormatError,
)

NUM_LISTED = 5
LONGEST_ENTRY = 60
LONGEST_NAME = 120
SAFETENSORS_ENDINGS = (".safetensors", ".sft")


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file is, or should be, a safetensors file, judged by its ending or its first bytes."""
    path = Path(path)
    if path.suffix.lower() in SAFETENSORS_ENDINGS:
        return True
    with path.open("rb") as file:
        start = file.read(9)  # the header's length, and its opening brace
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file.

    Args:
        path: the file.
    Returns:
        The tensors, on the CPU and mapped from the file, and the metadata of its header.
    Raises:
        CheckpointReadError: the file is missing, empty, truncated, or not a safetensors file.
    """
    path = Path(path)
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise CheckpointReadError(f"'{path.name}' cannot be opened: {error}") from error
    if num_bytes == 0:
        raise CheckpointReadError(f"'{path.name}' is empty (0 bytes); download it again")
    failure = f"'{path.name}' ({num_bytes:,} bytes) is truncated or not a safetensors file"
    with guarded(CheckpointReadError, failure, advice="download it again"), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_safetensors_header(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the metadata of a safetensors file, and nothing else.

    Raises:
        CheckpointReadError: the file cannot be read.
    """
    failure = f"'{Path(path).name}' cannot be opened, or is not a safetensors file"
    with guarded(CheckpointReadError, failure, advice="download it again"), safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically: `path` always holds the old file or the complete new one.

    Args:
        path: the file; its folder exists.
        tensors: any device and memory layout; tensors that share memory are written separately.
        metadata: text entries of the file's header.
    Raises:
        CheckpointError: the file cannot be written; an existing file is unchanged.
    """
    with written_whole(Path(path), CheckpointError) as partial:
        save_file(_standalone(tensors), partial, metadata=dict(metadata))


def _standalone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous CPU tensors with separate storage, because safetensors refuses anything else."""
    standalone: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        standalone[name] = tensor
    return standalone


def hash_state_dict(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of named tensors. It depends on names, dtypes, shapes and bytes, not on order or device.

    Each tensor, in the order of the names by code point, contributes one line of JSON, `["name","dtype",[sizes]]`
    without spaces and in ASCII, ended by a line feed, and then its elements' bytes, row-major and little-endian. The
    dtype has torch's name (`float16`, `bfloat16`, `float8_e4m3fn`).

    Args:
        tensors: name -> tensor of any shape and dtype.
    Returns:
        64 lower-case hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        entry = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n")
        # as_strided, because a contiguous tensor of one element can have any stride, which view() refuses
        digest.update(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def list_names(names: Iterable[str]) -> str:
    """Returns the first few names, sorted, and the number of the others, for a message."""
    ordered = sorted(shortened(name, LONGEST_NAME) for name in names)
    listed = ", ".join(ordered[:NUM_LISTED])
    return listed if len(ordered) <= NUM_LISTED else f"{listed} and {len(ordered) - NUM_LISTED} more"


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """One of the pack's own file formats, which docs/formats.md specifies.

    Attributes:
        name: the header's entry `format`.
        version: what is written, and the newest that is read.
        kind: the kind of file in messages.
        entries: what a header holds beside `format` and `version`.
    """

    name: str
    version: int
    kind: str
    entries: tuple[str, ...]

    def header(self, **entries: str) -> dict[str, str]:
        """The header of a new file: its format, its version, and the given entries."""
        return {"format": self.name, "version": str(self.version), **entries}

    def check_header(self, file: str, header: Mapping[str, str]) -> None:
        """Raises unless a file's header is of this format, and complete.

        Args:
            file: the file's name in messages.
            header: its text entries.
        Raises:
            UnknownFormatError: another format, a newer version, or entries are missing.
        """
        if header.get("format") != self.name:
            format_name = shortened(header.get("format", "none"), LONGEST_ENTRY)
            raise UnknownFormatError(
                f"'{file}' is not {self.kind}: the format in its header is '{format_name}', not '{self.name}'; choose "
                "another file, or use the original if another program saved it without the header"
            )
        found = header.get("version", "")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", found):
            version = shortened(found, LONGEST_ENTRY)
            raise UnknownFormatError(
                f"the version in the header of '{file}' is '{version}', which is not valid; the file is damaged"
            )
        if int(found) > self.version:
            raise UnknownFormatError(
                f"'{file}' has version {found} of the format '{self.name}', but this pack reads only up to version "
                f"{self.version}; update the pack"
            )
        if missing := [entry for entry in self.entries if entry not in header]:
            raise UnknownFormatError(
                f"the header of '{file}' does not contain {list_names(missing)}; the file is damaged"
            )


def check_hash(file: str, tensors: Mapping[str, Tensor], expected: str, *, part: str = "tensors") -> None:
    """Raises unless tensors of a file are those that it was written with.

    Args:
        file: the file's name in messages.
        tensors: the file's, or a part of them.
        expected: their `hash_state_dict`, from the header.
        part: what messages call these tensors.
    Raises:
        CheckpointReadError: the hashes differ.
    """
    found = hash_state_dict(tensors)
    if found != expected:
        raise CheckpointReadError(
            f"'{file}' is damaged, or was changed after it was written: the hash of its {part} is {found[:12]}, but "
            f"the header says {expected[:12]}; use the original file"
        )


def check_keys(file: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Raises unless a file holds exactly the tensors that the model needs.

    Args:
        file: the file's name in messages.
        found: names of the file's tensors.
        expected: names that the model needs.
    Raises:
        CheckpointKeyError: tensors are missing or do not belong; the message names them.
    """
    found, expected = set(found), set(expected)
    missing, extra = expected - found, found - expected
    faults: list[str] = []
    if missing:
        faults.append(f"{len(missing)} missing ({list_names(missing)})")
    if extra:
        faults.append(f"{len(extra)} that do not belong ({list_names(extra)})")
    if faults:
        raise CheckpointKeyError(
            f"the tensors of '{file}' do not fit: {', '.join(faults)}; "
            "the file is incomplete or was made for another model"
        )


def check_shapes(file: str, found: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Raises unless each tensor of a file has the shape that the model needs.

    Args:
        file: the file's name in messages.
        found: the file's tensors; all their names are in `expected`.
        expected: name -> shape.
    Raises:
        CheckpointShapeError: a tensor has another shape; the message names the first one and the number of the others.
    """
    wrong = [name for name in sorted(found) if found[name].shape != expected[name]]
    if wrong:
        first, more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckpointShapeError(
            f"'{first}' in '{file}' is {tuple(found[first].shape)}, but the model needs "
            f"{tuple(expected[first])}{more}; the file was made for another model"
        )
