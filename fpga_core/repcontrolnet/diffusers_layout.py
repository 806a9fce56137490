"""The third-party layout: diffusers' module names, each copied layer beside its original with `_rep` in its name.

`down_blocks.0.resnets.0.conv1_rep.weight` is the copy of `down_blocks.0.resnets.0.conv1.weight`, the hint encoder is diffusers'
`controlnet_cond_embedding`. ComfyUI builds the same UNet under the names of the original implementation; this module translates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..checkpoints import list_names
from ..errors import CheckpointKeyError

TWIN_SUFFIX = "_rep"
HINT_ENCODER = "controlnet_cond_embedding."

STEM_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
MIDDLE_BLOCKS = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}

BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.([01])\.(.+)")


def has_twins(names: Iterable[str]) -> bool:
    """Whether the tensor names are of this layout."""
    return any(_without_suffix(name) != name for name in names)


def convert_diffusers(state_dict: Mapping[str, Tensor], file: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translates a file of the third-party layout.

    Args:
        state_dict: tensors with `_rep` and `controlnet_cond_embedding.` in their names; the originals may stand beside the copies.
        file: what messages call the file.
    Returns:
        The copies by ComfyUI's parameter names, and the hint encoder's state dict.
    Raises:
        CheckpointKeyError: a tensor has no place in a UNet, or two have the same.
    """
    names = UNetNames(_without_suffix(name) for name in state_dict)
    weights: dict[str, Tensor] = {}
    adapter: dict[str, Tensor] = {}
    strangers: list[str] = []
    for name, tensor in state_dict.items():
        original = _without_suffix(name)
        if name.startswith(HINT_ENCODER):
            target, key = adapter, _hint_name(name)
        else:
            target, key = weights, names.translate(original)
        if key is None or key in target:
            strangers.append(name)
        elif target is adapter or original != name:
            target[key] = tensor
    if strangers:
        raise CheckpointKeyError(
            f"'{file}' has the names of a diffusers RepControlNet, but {len(strangers)} of its tensors have no place of their own "
            f"in a UNet ({list_names(strangers)}); the file is damaged or of a newer layout"
        )
    return weights, adapter


def _without_suffix(name: str) -> str:
    return ".".join(part.removesuffix(TWIN_SUFFIX) for part in name.split("."))


def _hint_name(name: str) -> str | None:
    """`conv_in`, `blocks.0` ... `blocks.5`, `conv_out` are the sequence's entries 0, 2 ... 12, 14."""
    module, _, kind = name.removeprefix(HINT_ENCODER).rpartition(".")
    numbers = {"conv_in": 0, "conv_out": 14} | {f"blocks.{number}": 2 * number + 2 for number in range(6)}
    return f"{numbers[module]}.{kind}" if module in numbers else None


class UNetNames:
    """ComfyUI's names for the parameters of one diffusers UNet, whose depth is read off its names.

    ComfyUI numbers the blocks through all levels, the downsampling convolutions among them; diffusers numbers levels, and the layers
    within a level.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.num_resnets: dict[tuple[str, int], int] = {}
        self.up_attentions: set[tuple[int, int]] = set()
        for name in names:
            if match := BLOCK.fullmatch(name):
                half, level, kind, index = match[1], int(match[2]), match[3], int(match[4])
                if kind == "resnets":
                    self.num_resnets[half, level] = max(self.num_resnets.get((half, level), 0), index + 1)
                if kind == "attentions" and half == "up_blocks":
                    self.up_attentions.add((level, index))

    def translate(self, name: str) -> str | None:
        """ComfyUI's name of a parameter, or None where a UNet has no such parameter."""
        module, _, kind = name.rpartition(".")
        if module in STEM_NAMES:
            return f"{STEM_NAMES[module]}.{kind}"
        if match := MIDDLE.fullmatch(name):
            layer, number = match[1], MIDDLE_BLOCKS.get(f"{match[1]}.{match[2]}")
            inner = match[3] if layer == "attentions" else _resnet_name(match[3])
            return None if number is None or inner is None else f"middle_block.{number}.{inner}"
        if match := BLOCK.fullmatch(name):
            return self._translate_block(match[1], int(match[2]), match[3], int(match[4]), match[5])
        return None

    def _translate_block(self, half: str, level: int, layer: str, index: int, inner: str) -> str | None:
        num_resnets = self.num_resnets.get((half, level), 0)
        if half == "down_blocks":
            first = 1 + sum(
                count + 1 for (side, lower), count in self.num_resnets.items() if side == half and lower < level
            )
            if layer == "downsamplers" and index == 0 and inner.startswith("conv."):
                return f"input_blocks.{first + num_resnets}.0.op.{inner.removeprefix('conv.')}"
            block = f"input_blocks.{first + index}"
        else:
            first = sum(count for (side, lower), count in self.num_resnets.items() if side == half and lower < level)
            if layer == "upsamplers" and index == 0 and inner.startswith("conv."):
                position = 2 if (level, num_resnets - 1) in self.up_attentions else 1
                return f"output_blocks.{first + num_resnets - 1}.{position}.{inner}"
            block = f"output_blocks.{first + index}"
        if layer == "attentions" and index < num_resnets:
            return f"{block}.1.{inner}"
        resnet = _resnet_name(inner) if layer == "resnets" else None
        return None if resnet is None else f"{block}.0.{resnet}"


def _resnet_name(inner: str) -> str | None:
    module, _, kind = inner.rpartition(".")
    return f"{RESNET_NAMES[module]}.{kind}" if module in RESNET_NAMES else None
