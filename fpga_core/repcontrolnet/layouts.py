"""Reads RepControlNet files in the pack's own layout and in the third-party one, which it tells apart by their tensors.

docs/formats.md specifies both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from ..boundaries import shortened
from ..checkpoints import FileFormat, check_hash, list_names
from ..errors import BaseModelError, CheckpointKeyError, UnknownFormatError
from .branch import BranchHeader, RepControlNet, recognise_base
from .diffusers_layout import convert_diffusers, has_twins
from .hint_encoder import hint_encoder_widths

FORMAT = FileFormat(
    name="fpga-repcontrolnet",
    version=1,
    kind="a RepControlNet",
    entries=("contents", "base", "conditions", "trained_on", "branch_hash", "adapter_hash"),
)
BRANCH_PREFIX = "modal."
HINT_ENCODER_PREFIX = "adapter."
CONTENTS_BRANCH = "branch"
CONTENTS_HINT_ENCODER = "adapter"
OWN_TENSOR = re.compile(r"modal\.|adapter\.\d+\.")

OTHER_FILES = {
    "a whole checkpoint": ("model.diffusion_model.", "first_stage_model."),
    "a ControlNet": ("input_hint_block.", "controlnet_cond_embedding.", "zero_convs.", "controlnet_down_blocks."),
    "a T2I-Adapter": ("adapter.body.", "adapter.conv_in.", "body.0."),
    "a LoRA": (".lora_down.", ".lora_up.", ".lora_A.", ".hada_w1_a", ".lokr_w1"),
    "an IP-Adapter": ("ip_adapter.", "image_proj."),
    "a diffusion model": ("input_blocks.", "down_blocks.", "double_blocks.", "transformer_blocks."),
    "a VAE": ("encoder.conv_in.", "decoder.conv_in."),
    "a text or image encoder": ("text_model.", "vision_model."),
}
"""How files of other kinds are told, by parts of their tensors' names. Messages name the first kind that matches."""


def read_repcontrolnet(contents: Mapping[Any, object], metadata: Mapping[str, str] | None, name: str) -> RepControlNet:
    """Makes a RepControlNet from the contents of a file, in any of the layouts that docs/formats.md lists.

    Args:
        contents: the file's tensors; a pickle may hold anything.
        metadata: text entries of the file's header; None or empty if the file type has none.
        name: the file's name in messages.
    Returns:
        The branch, its weights under ComfyUI's parameter names.
    Raises:
        UnknownFormatError: the file is not a RepControlNet, is of a newer version, or has no sound header.
        CheckpointKeyError: tensors are missing or do not belong.
        CheckpointShapeError: the hint encoder's tensors do not fit each other.
        BaseModelError: the header names a different base from the one that the tensors show.
        CheckpointReadError: the tensors have changed since the file was written.
    """
    metadata = metadata or {}
    keys = [str(key) for key in contents]
    if metadata.get("format") == FORMAT.name or any(OWN_TENSOR.match(key) for key in keys):
        return _read_own_layout(_as_state_dict(contents, name), metadata, name)
    if has_twins(keys):
        weights, hint_encoder = convert_diffusers(_as_state_dict(contents, name), name)
        hint_encoder_widths(hint_encoder, name)
        return RepControlNet.from_weights(name, weights, hint_encoder)
    raise UnknownFormatError(f"'{name}' is not a RepControlNet: {_describe(keys)}; choose a RepControlNet file")


def _as_state_dict(contents: Mapping[Any, object], name: str) -> dict[str, Tensor]:
    state_dict: dict[str, Tensor] = {}
    for key, tensor in contents.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UnknownFormatError(
                f"'{key}' in '{name}' is {kind}, not a floating-point tensor; the file is damaged or does not hold "
                "weights"
            )
        state_dict[str(key)] = tensor
    return state_dict


def _describe(keys: list[str]) -> str:
    for kind, marks in OTHER_FILES.items():
        if any(mark in key for mark in marks for key in keys):
            return f"it looks like {kind}"
    return f"it holds {len(keys)} entries ({list_names(keys)})" if keys else "it holds no tensors"


def _read_own_layout(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> RepControlNet:
    header = _read_header(metadata, name)
    weights = _without_prefix(BRANCH_PREFIX, state_dict)
    hint_encoder = _without_prefix(HINT_ENCODER_PREFIX, state_dict)
    if strangers := [key for key in state_dict if not key.startswith((BRANCH_PREFIX, HINT_ENCODER_PREFIX))]:
        raise CheckpointKeyError(
            f"'{name}' holds tensors that do not belong in a RepControlNet ({list_names(strangers)}); "
            "the file is damaged"
        )
    contents = metadata["contents"]
    if bool(weights) != (contents == CONTENTS_BRANCH):
        raise CheckpointKeyError(
            f"the contents in the header of '{name}' are '{contents}', but the file holds {len(weights)} "
            f"'{BRANCH_PREFIX}' tensors; the file is damaged"
        )
    hint_encoder_widths(hint_encoder, name)
    check_hash(name, hint_encoder, metadata["adapter_hash"], part="hint encoder")
    if weights:
        check_hash(name, weights, header.branch_hash, part="branch")
        base = recognise_base({key: tensor.shape for key, tensor in weights.items()})
        if base != header.base:
            raise BaseModelError(
                f"the header of '{name}' says it is for {header.base}, but its tensors are those of {base}; "
                "the file is damaged or was written by another program"
            )
    return RepControlNet(name, header, weights, hint_encoder)


def _without_prefix(prefix: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)}


def _read_header(metadata: Mapping[str, str], name: str) -> BranchHeader:
    FORMAT.check_header(name, metadata)
    contents = metadata["contents"]
    if contents not in (CONTENTS_BRANCH, CONTENTS_HINT_ENCODER):
        raise UnknownFormatError(
            f"the contents in the header of '{name}' are '{shortened(contents)}', which is not valid; the file is "
            "damaged"
        )
    conditions = _read_conditions(metadata["conditions"], name)
    return BranchHeader(
        base=metadata["base"],
        conditions=conditions,
        trained_on=metadata["trained_on"],
        branch_hash=metadata["branch_hash"],
    )


def _read_conditions(text: str, name: str) -> tuple[str, ...]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    conditions = cast("list[object]", found) if isinstance(found, list) else [found]
    words = tuple(condition for condition in conditions if isinstance(condition, str))
    if not isinstance(found, list) or len(words) < len(conditions):
        raise UnknownFormatError(
            f"the conditions in the header of '{name}' are not a JSON list of words; the file is damaged"
        )
    return words
