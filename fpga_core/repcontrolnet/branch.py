"""A RepControlNet: copies of a UNet's layers, the hint encoder, and where both come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..checkpoints import hash_state_dict
from .bases import recognise_base

INITIAL_RATIO = 0.1


@dataclass(frozen=True, eq=False, kw_only=True)
class BranchHeader:
    """Where a branch comes from.

    Attributes:
        base: architecture of the UNet that it was copied from, as `bases.recognise_base` names it: "sd15", "sdxl", ...
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
