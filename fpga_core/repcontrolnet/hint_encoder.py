"""The hint encoder, which the paper calls the Adapter: ControlNet's, added after the UNet's first convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from ..checkpoints import check_keys
from ..errors import CheckpointShapeError

SD15_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256, 320)
STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)
"""The strides of the 3x3 convolutions, from pixels to latent pixels, 8 times smaller."""


class Operations(Protocol):
    """Where layers are taken from: `torch.nn`, or one of ComfyUI's classes of operations."""

    @property
    def Conv2d(self) -> type[nn.Conv2d]: ...  # noqa: N802 - torch's name


class HintEncoder(nn.Sequential):
    """Encodes a condition image, (batch, 3, height, width) in [0, 1], as a feature map 8 times smaller.

    It has eight 3x3 convolutions with SiLU between them; the last is linear. They are entries 0, 2, ..., 14 of the
    sequence, so that the state dict has the names of ControlNet's `input_hint_block`.

    Args:
        widths: channels of the image, after each convolution, and of the UNet's first convolution: 9 numbers.
        operations: where `Conv2d` is taken from.
        dtype, device: dtype and device of the parameters.
    Source: ControlNet's hint encoder; 1,086,480 parameters at SD1.5's widths.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = SD15_WIDTHS,
        *,
        operations: Operations = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        layers: list[nn.Module] = []
        for num_in, num_out, stride in zip(widths[:-1], widths[1:], STRIDES, strict=True):
            convolution = operations.Conv2d(num_in, num_out, 3, stride=stride, padding=1, dtype=dtype, device=device)
            layers += [convolution, nn.SiLU()]
        super().__init__(*layers[:-1])


def hint_encoder_widths(state_dict: Mapping[str, Tensor], file: str = "hint encoder") -> tuple[int, ...]:
    """Reads the channels of a hint encoder from its state dict.

    Args:
        state_dict: keys `0.weight`, `0.bias`, `2.weight`, ... `14.bias`.
        file: the file's name in messages.
    Returns:
        9 numbers, as `HintEncoder` takes them.
    Raises:
        CheckpointKeyError: a layer is missing or does not belong.
        CheckpointShapeError: a tensor does not belong to a 3x3 convolution, or does not fit the one before it.
    """
    layers = range(0, 2 * len(STRIDES), 2)
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    check_keys(file, (f"adapter.{name}" for name in state_dict), (f"adapter.{name}" for name in expected))
    widths = [SD15_WIDTHS[0]]
    for layer in layers:
        weight, bias = state_dict[f"{layer}.weight"].shape, state_dict[f"{layer}.bias"].shape
        if len(weight) != 4 or weight[1:] != (widths[-1], 3, 3) or bias != weight[:1] or weight[0] == 0:
            raise CheckpointShapeError(
                f"adapter.{layer} in '{file}' has a weight of {tuple(weight)} and a bias of {tuple(bias)}, but the "
                f"hint encoder of a ControlNet has (channels, {widths[-1]}, 3, 3) and (channels,); the file is damaged"
            )
        widths.append(weight[0])
    return tuple(widths)


def build_hint_encoder(
    state_dict: Mapping[str, Tensor],
    *,
    operations: Operations = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> HintEncoder:
    """A hint encoder with the weights of a state dict, at the widths found there.

    Args:
        state_dict: of a hint encoder.
        operations: where `Conv2d` is taken from.
        dtype: of the parameters; None: as in the state dict.
        device: device of the parameters.
    Raises:
        CheckpointKeyError, CheckpointShapeError: the state dict is not that of a hint encoder.
    """
    dtype = dtype or state_dict["0.weight"].dtype
    encoder = HintEncoder(hint_encoder_widths(state_dict), operations=operations, dtype=dtype, device=device)
    encoder.load_state_dict(dict(state_dict))
    return encoder.requires_grad_(False)
