"""A RepControlNet: copies of a UNet's layers, the hint encoder, where both come from, and how a base is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoints import hash_state_dict

INITIAL_RATIO = 0.1

KNOWN_BASES: Mapping[tuple[int, bool], str] = {
    (768, False): "sd15",
    (1024, False): "sd21",
    (1280, True): "sdxl-refiner",
    (2048, True): "sdxl",
}
"""(width of the text embedding, whether the picture's size is embedded too) -> name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BranchHeader:
    """Where a branch comes from.

    Attributes:
        base: architecture of the UNet that it was copied from, as `recognise_base` names it: "sd15", "sdxl", ...
        conditions: what its condition image shows, in drawing order, for example ("skeleton", "landmarks").
        trained_on: the data or purpose that it was trained on, as free text.
        branch_hash: SHA-256 of the copied layers (`checkpoints.hash_state_dict`), by which other files name this
            branch.
    """

    base: str
    conditions: tuple[str, ...]
    trained_on: str
    branch_hash: str


@dataclass(frozen=True, eq=False)
class RepControlNet:
    """A trained branch: the copies that are added to the weights, and the hint encoder.

    Attributes:
        name: what messages call it, usually the file's name.
        header: where it comes from.
        weights: `<module path in the UNet>.weight` or `.bias` -> tensor of the base parameter's shape; empty if the
            file holds only the hint encoder, because the copy is already folded into a saved model.
        hint_encoder: state dict of the hint encoder (`hint_encoder.HintEncoder`).
    """

    name: str
    header: BranchHeader
    weights: Mapping[str, Tensor]
    hint_encoder: Mapping[str, Tensor]

    @classmethod
    def from_weights(
        cls,
        name: str,
        weights: Mapping[str, Tensor],
        hint_encoder: Mapping[str, Tensor],
        *,
        conditions: tuple[str, ...] = (),
        trained_on: str = "",
    ) -> RepControlNet:
        """Creates a branch whose header follows from its weights: the base is recognised, and the hash computed.

        Args:
            name: what messages call it.
            weights: copies of all of a UNet's convolution and linear layers.
            hint_encoder: state dict of the hint encoder.
            conditions: what the condition image shows.
            trained_on: the data or purpose that it was trained on.
        """
        base = recognise_base({parameter: weight.shape for parameter, weight in weights.items()})
        branch_hash = hash_state_dict(weights)
        header = BranchHeader(base=base, conditions=conditions, trained_on=trained_on, branch_hash=branch_hash)
        return cls(name, header, weights, hint_encoder)

    @property
    def is_hint_encoder_only(self) -> bool:
        """Whether the file holds only the hint encoder, so that there is nothing to fold."""
        return not self.weights


def initial_branch(base: Mapping[str, Tensor], ratio: float = INITIAL_RATIO) -> dict[str, Tensor]:
    """Copies a UNet's layers as an untrained branch.

    Args:
        base: weights and biases of the UNet's convolution and linear layers (`folding.foldable_parameters` names them).
        ratio: factor on the base weights from which the copy starts.
    Returns:
        New tensors under the same names, dtypes and devices.
    Source: FPGA Eq. 5, `W_m = w W` with w = 0.1; at alpha = beta = 1 the fold of an untrained branch is 1.1 W.
    """
    return {name: weight.detach() * ratio for name, weight in base.items()}


def recognise_base(shapes: Mapping[str, torch.Size]) -> str:
    """Names the base architecture of a UNet, or of a branch copied from one.

    Args:
        shapes: parameter names in ComfyUI's layout, without a prefix -> shapes.
    Returns:
        "sd15", "sd21", "sdxl" or "sdxl-refiner"; "unet-<text width>" for any other UNet; "unknown" if there is no
        cross-attention.
    """
    for name, shape in shapes.items():
        if name.endswith(".attn2.to_k.weight") and len(shape) == 2:
            return KNOWN_BASES.get((shape[1], "label_emb.0.0.weight" in shapes), f"unet-{shape[1]}")
    return "unknown"
