"""The third-party layout: diffusers' module names, with `_rep` in the names of the copied layers.

`down_blocks.0.resnets.0.conv1_rep.weight` is the copy of `down_blocks.0.resnets.0.conv1.weight`; the hint encoder is
diffusers' `controlnet_cond_embedding`. ComfyUI builds the same UNet under the names of the original implementation.
This module translates the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..checkpoints import list_names
from ..errors import CheckpointKeyError

TWIN_SUFFIX = "_rep"
HINT_ENCODER = "controlnet_cond_embedding."
PARAMETERS = ("weight", "bias")

HINT_LAYERS = {"conv_in": "0", "conv_out": "14"} | {f"blocks.{number}": f"{2 * number + 2}" for number in range(6)}
STEM_LAYERS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET_LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
SAMPLER_LAYERS = {"downsamplers": {"conv": "op"}, "upsamplers": {"conv": "conv"}}
MIDDLE_BLOCKS = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}

BLOCK = re.compile(r"(.+\.(resnets|attentions|downsamplers|upsamplers)\.[0-9]+)\.(.+)")
RESNET = re.compile(r"(down_blocks|up_blocks)\.([0-9]{1,3})\.resnets\.([0-9]{1,3})\..+")
ATTENTION_LAYER = re.compile(
    r"norm|proj_in|proj_out|transformer_blocks\.[0-9]+\.(norm[123]|attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
)


def has_twins(names: Iterable[str]) -> bool:
    """Returns whether tensor names have this layout."""
    return any(_original(name) != name for name in names)


def convert_diffusers(state_dict: Mapping[str, Tensor], file: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translates a file of the third-party layout.

    Args:
        state_dict: tensors with `_rep` and `controlnet_cond_embedding.` in their names; the originals are optional, and
            are left out.
        file: the file's name in messages.
    Returns:
        The copies by ComfyUI's parameter names, and the hint encoder's state dict.
    Raises:
        CheckpointKeyError: a tensor has no place in a UNet, or two have the same.
    """
    blocks = block_names(_original(name) for name in state_dict)
    weights: dict[str, Tensor] = {}
    hint_encoder: dict[str, Tensor] = {}
    strangers: list[str] = []
    for name, tensor in state_dict.items():
        original = _original(name)
        is_copy = original != name
        if name.startswith(HINT_ENCODER):
            part, key = hint_encoder, _translate(name.removeprefix(HINT_ENCODER), HINT_LAYERS)
        else:
            part, key = weights, parameter_name(original, blocks)
        if key is None or (is_copy and key in part):
            strangers.append(name)
        elif is_copy or part is hint_encoder:
            part[key] = tensor
    if strangers:
        raise CheckpointKeyError(
            f"'{file}' has the names of a diffusers RepControlNet, but {len(strangers)} of its tensors have no place "
            f"in a UNet ({list_names(strangers)}); the file is damaged or has a newer layout"
        )
    return weights, hint_encoder


def block_names(names: Iterable[str]) -> dict[str, str]:
    """Returns ComfyUI's names for the blocks of a diffusers UNet, whose depth follows from its names.

    ComfyUI numbers the blocks through all levels, including the downsampling convolutions. diffusers numbers levels,
    and the layers within a level.

    Args:
        names: parameter names of the UNet in diffusers' layout, with at least one for every resnet and attention.
    Returns:
        Path of a resnet, attention, downsampler or upsampler -> ComfyUI's path, including some that the UNet does not
        have.
    """
    names = list(names)
    num_resnets: dict[tuple[str, int], int] = {}
    for match in filter(None, map(RESNET.fullmatch, names)):
        level = match[1], int(match[2])
        num_resnets[level] = max(num_resnets.get(level, 0), int(match[3]) + 1)
    with_attention = {match[1] for match in map(BLOCK.fullmatch, names) if match and match[2] == "attentions"}

    blocks = dict(MIDDLE_BLOCKS)
    counters = {"down_blocks": 1, "up_blocks": 0}  # input block 0 is the first convolution
    for (half, level), count in sorted(num_resnets.items()):
        side = "input_blocks" if half == "down_blocks" else "output_blocks"
        for index in range(count):
            number = counters[half] + index
            blocks[f"{half}.{level}.resnets.{index}"] = f"{side}.{number}.0"
            blocks[f"{half}.{level}.attentions.{index}"] = f"{side}.{number}.1"
        counters[half] += count
        if half == "down_blocks":
            blocks[f"{half}.{level}.downsamplers.0"] = f"{side}.{counters[half]}.0"
            counters[half] += 1
        else:
            position = 2 if f"{half}.{level}.attentions.{count - 1}" in with_attention else 1
            blocks[f"{half}.{level}.upsamplers.0"] = f"{side}.{counters[half] - 1}.{position}"
    return blocks


def parameter_name(name: str, blocks: Mapping[str, str]) -> str | None:
    """ComfyUI's name of a parameter of the UNet that `blocks` are of, or None if it has no such parameter."""
    match = BLOCK.fullmatch(name)
    if match is None:
        return _translate(name, STEM_LAYERS)
    path, kind, inner = match.groups()
    if path not in blocks:
        return None
    if kind == "attentions":
        layer, _, suffix = inner.rpartition(".")
        translated = inner if ATTENTION_LAYER.fullmatch(layer) and suffix in PARAMETERS else None
    else:
        translated = _translate(inner, RESNET_LAYERS if kind == "resnets" else SAMPLER_LAYERS[kind])
    return None if translated is None else f"{blocks[path]}.{translated}"


def _translate(parameter: str, layers: Mapping[str, str]) -> str | None:
    layer, _, suffix = parameter.rpartition(".")
    return f"{layers[layer]}.{suffix}" if layer in layers and suffix in PARAMETERS else None


def _original(name: str) -> str:
    return ".".join(part.removesuffix(TWIN_SUFFIX) for part in name.split("."))
