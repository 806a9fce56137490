"""The third-party layout: diffusers' module names, each copied layer beside its original with `_rep` in its name.

`down_blocks.0.resnets.0.conv1_rep.weight` is the copy of `down_blocks.0.resnets.0.conv1.weight`; the hint encoder is
diffusers' `controlnet_cond_embedding`. ComfyUI builds the same UNet under the names of the original implementation: this
module translates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..checkpoints import list_names
from ..errors import CheckpointKeyError

TWIN_SUFFIX = "_rep"
HINT_ENCODER = "controlnet_cond_embedding."

HINT_LAYERS = {"conv_in": 0, "conv_out": 14} | {f"blocks.{number}": 2 * number + 2 for number in range(6)}
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
MIDDLE_BLOCKS = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}

MIDDLE = re.compile(r"mid_block\.((resnets|attentions)\.[01])\.(.+)")
BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def has_twins(names: Iterable[str]) -> bool:
    """Whether tensor names are of this layout."""
    return any(_original(name) != name for name in names)


def convert_diffusers(state_dict: Mapping[str, Tensor], file: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translates a file of the third-party layout.

    Args:
        state_dict: tensors with `_rep` and `controlnet_cond_embedding.` in their names; the originals may stand beside
            the copies, and are left out.
        file: what messages call the file.
    Returns:
        The copies by ComfyUI's parameter names, and the hint encoder's state dict.
    Raises:
        CheckpointKeyError: a tensor has no place in a UNet, or two have the same.
    """
    names = UNetNames(_original(name) for name in state_dict)
    weights: dict[str, Tensor] = {}
    adapter: dict[str, Tensor] = {}
    strangers: list[str] = []
    for name, tensor in state_dict.items():
        original = _original(name)
        if name.startswith(HINT_ENCODER):
            part, key = adapter, _translate(name.removeprefix(HINT_ENCODER), HINT_LAYERS)
        else:
            part, key = weights, names.translate(original)
        if key is None or key in part:
            strangers.append(name)
        elif part is adapter or original != name:
            part[key] = tensor
    if strangers:
        raise CheckpointKeyError(
            f"'{file}' has the names of a diffusers RepControlNet, but {len(strangers)} of its tensors have no place of "
            f"their own in a UNet ({list_names(strangers)}); the file is damaged or of a newer layout"
        )
    return weights, adapter


def _original(name: str) -> str:
    return ".".join(part.removesuffix(TWIN_SUFFIX) for part in name.split("."))


def _translate(parameter: str, layers: Mapping[str, str | int]) -> str | None:
    layer, _, kind = parameter.rpartition(".")
    return f"{layers[layer]}.{kind}" if layer in layers else None


class UNetNames:
    """ComfyUI's names for the parameters of one diffusers UNet, whose depth is read off its names.

    ComfyUI numbers the blocks through all levels, the downsampling convolutions among them; diffusers numbers levels, and
    the layers within a level.

    Args:
        names: all parameter names of the UNet that are known, in diffusers' layout.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.num_resnets: dict[tuple[str, int], int] = {}
        self.attentions: set[tuple[str, int, int]] = set()
        for name in names:
            if match := BLOCK.fullmatch(name):
                half, level, kind, index = match[1], int(match[2]), match[3], int(match[4])
                if kind == "resnets":
                    self.num_resnets[half, level] = max(self.num_resnets.get((half, level), 0), index + 1)
                elif kind == "attentions":
                    self.attentions.add((half, level, index))

    def translate(self, name: str) -> str | None:
        """ComfyUI's name of a parameter, or None where a UNet has no such parameter."""
        if match := MIDDLE.fullmatch(name):
            inner = match[3] if match[2] == "attentions" else _translate(match[3], RESNET_LAYERS)
            is_known = match[1] in MIDDLE_BLOCKS and inner is not None
            return f"middle_block.{MIDDLE_BLOCKS[match[1]]}.{inner}" if is_known else None
        if match := BLOCK.fullmatch(name):
            return self._translate_block(match[1], int(match[2]), match[3], int(match[4]), match[5])
        return _translate(name, STEM_LAYERS)

    def _translate_block(self, half: str, level: int, kind: str, index: int, inner: str) -> str | None:
        num_resnets = self.num_resnets.get((half, level), 0)
        lower = [count for (side, number), count in self.num_resnets.items() if side == half and number < level]
        # input block 0 is the first convolution, and each level's downsampling convolution is a block of its own
        if half == "down_blocks":
            block, first = "input_blocks", 1 + sum(lower) + len(lower)
        else:
            block, first = "output_blocks", sum(lower)
        if kind == "resnets":
            resnet = _translate(inner, RESNET_LAYERS)
            return None if resnet is None else f"{block}.{first + index}.0.{resnet}"
        if kind == "attentions" and index < num_resnets:
            return f"{block}.{first + index}.1.{inner}"
        if index > 0 or not inner.startswith("conv."):
            return None
        if half == "down_blocks" and kind == "downsamplers":
            return f"{block}.{first + num_resnets}.0.op.{inner.removeprefix('conv.')}"
        if half == "up_blocks" and kind == "upsamplers" and num_resnets > 0:
            position = 2 if (half, level, num_resnets - 1) in self.attentions else 1
            return f"{block}.{first + num_resnets - 1}.{position}.{inner}"
        return None
