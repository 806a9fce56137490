"""A RepControlNet's copies in training. They are folded into the frozen layers at every call."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import InvalidInputError
from ...repcontrolnet.branch import INITIAL_RATIO, RepControlNet, initial_branch
from ...repcontrolnet.folding import FIRST_CONVOLUTION, check_branch_fits, fold_weight, foldable_parameters
from ...repcontrolnet.hint_encoder import SD15_WIDTHS, HintEncoder, build_hint_encoder
from .seeding import seeded

KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")


class TrainedPart(str, Enum):
    """The part of a branch that is trained."""

    ALL = "all"
    """Every copied layer and the hint encoder."""
    KEYS_VALUES = "keys_values"
    """The copies of cross attention's key and value projections, which read identity tokens."""
    NONE = "none"


class FoldedBranch(nn.Module):
    """float32 copies of a UNet's convolutions and linear layers, and the hint encoder.

    A layer of the UNet that it is attached to computes `(W + W_m) x + (b + b_m)`, the paper's sum of two outputs, in
    one product: with the base frozen, forward and backward take three convolutions instead of five.

    Attributes:
        layers: the copies; their names have slashes instead of dots.
        adapter: the hint encoder; saved states know it by this name.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], hint_encoder: HintEncoder, *, part: TrainedPart = TrainedPart.ALL
    ) -> None:
        super().__init__()
        self.layers = nn.ParameterDict(
            {_key(name): nn.Parameter(weight.detach().float().clone()) for name, weight in weights.items()}
        )
        self.adapter = hint_encoder.float().requires_grad_(part is TrainedPart.ALL)
        for name in weights:
            is_trained = part is TrainedPart.ALL or (part is TrainedPart.KEYS_VALUES and name.endswith(KEYS_AND_VALUES))
            self.layers[_key(name)].requires_grad_(is_trained)

    @classmethod
    def start(
        cls, unet: nn.Module, *, ratio: float = INITIAL_RATIO, part: TrainedPart = TrainedPart.ALL, seed: int = 0
    ) -> FoldedBranch:
        """Creates the untrained branch of a UNet.

        Args:
            unet: the UNet whose layers are copied.
            ratio: factor w on the base weights from which the copies start.
            part: what is trained.
            seed: seed of the hint encoder's initial weights. As in a ControlNet, its last convolution starts at zero,
                so that the condition image changes nothing at first.
        Raises:
            InvalidInputError: the ratio is not a number from 0 to 1.
        Source: FPGA Eq. 5.
        """
        if not 0 <= ratio <= 1:
            raise InvalidInputError(
                f"the branch would start at {ratio:g} times the base; the ratio must be from 0 to 1"
            )
        parameters = dict(unet.named_parameters())
        base = {name: parameters[name] for name in foldable_parameters(unet)}
        width = len(parameters[FIRST_CONVOLUTION])
        inner = (min(inner, width) for inner in SD15_WIDTHS[1:-1])  # a small UNet gets a small encoder
        return cls(
            initial_branch(base, ratio), untrained_hint_encoder((SD15_WIDTHS[0], *inner, width), seed), part=part
        )

    @classmethod
    def resume(cls, unet: nn.Module, branch: RepControlNet, *, part: TrainedPart = TrainedPart.ALL) -> FoldedBranch:
        """Creates a branch that trains the branch of a file further.

        Args:
            unet: the UNet that it belongs to.
            branch: as read from the file.
            part: what is trained.
        Raises:
            BaseModelError, CheckpointKeyError, CheckpointShapeError: the branch does not fit the UNet.
        """
        check_branch_fits(branch, foldable_parameters(unet))
        return cls(branch.weights, build_hint_encoder(branch.hint_encoder, dtype=torch.float32), part=part)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Returns the copies by their names in the UNet, detached."""
        return {key.replace("/", "."): weight.detach() for key, weight in self.layers.items()}

    def attach(self, unet: nn.Module) -> None:
        """Makes each copied layer of a UNet compute with the sum of its own weights and this branch's, permanently.

        Args:
            unet: a copy that is used for this training only. Its layers are subclasses of `torch.nn`'s.
        """
        for path in dict.fromkeys(name.rpartition(".")[0] for name in self.weights):
            layer = cast("nn.Linear | nn.Conv2d", unet.get_submodule(path))
            layer.forward = partial(self._run, layer, path)  # pyright: ignore[reportAttributeAccessIssue]

    def _run(self, layer: nn.Linear | nn.Conv2d, path: str, x: Tensor) -> Tensor:
        weight = self._folded(layer.weight, f"{path}.weight", x.dtype)
        bias = None if layer.bias is None else self._folded(layer.bias, f"{path}.bias", x.dtype)
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(x, weight, bias)
        return nn.functional.conv2d(
            x,
            weight,
            bias,
            stride=layer.stride,
            padding=cast("tuple[int, ...]", layer.padding),
            dilation=layer.dilation,
            groups=layer.groups,
        )

    def _folded(self, base: Tensor, name: str, dtype: torch.dtype) -> Tensor:
        return fold_weight(base, self.layers[_key(name)]).to(dtype)


def untrained_hint_encoder(widths: tuple[int, ...], seed: int) -> HintEncoder:
    """A hint encoder of these widths with random weights, except for its last convolution, which is zero."""
    with seeded(seed):
        encoder = HintEncoder(widths)
    for parameter in encoder[-1].parameters():
        nn.init.zeros_(parameter)
    return encoder


def _key(name: str) -> str:
    return name.replace(".", "/")
