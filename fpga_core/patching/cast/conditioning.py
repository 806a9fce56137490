"""A cast inside ComfyUI's conditioning: tokens and regions that the host batches, crops and pairs like its own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from comfy.conds import CONDNoiseShape, CONDRegular
from torch import Tensor

from ...errors import InvalidInputError
from ...identity.cast import Cast
from ...shapes import Extent

KEY_PREFIX = "fpga_cast_"


def new_cast_key() -> str:
    """Returns a new name for one application of a cast, on the model and in the conditioning."""
    return f"{KEY_PREFIX}{uuid.uuid4().hex}"


def is_cast_key(name: object) -> bool:
    """Returns whether a name comes from `new_cast_key`, or is derived from one that does."""
    return str(name).startswith(KEY_PREFIX)


def rows_key(key: str) -> str:
    return f"{key}_rows"


def weights_key(key: str) -> str:
    return f"{key}_weights"


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedCast:
    """The part of a cast that one conditioning carries.

    Attributes:
        tokens: one set per member of the cast, (identities, num_tokens, token_dim).
        cast: where and how strongly each of them acts.
        numbers: the members' positions in the user's list, from 1.
        strength: factor on the members' own strengths.
    """

    tokens: Tensor
    cast: Cast
    numbers: tuple[int, ...]
    strength: float

    def weights(self, extent: Extent) -> Tensor:
        """Returns strength times region on a grid, (1, identities, height, width) float32."""
        strengths = torch.tensor([self.strength * member.strength for member in self.cast.members])
        return (self.cast.rasterise(extent) * strengths[:, None, None])[None]


class PendingCast(CONDRegular):
    """An `EncodedCast` before the size of the run's latent is known.

    `resolve_casts` replaces it before anything is cropped.
    """

    def process_cond(self, batch_size: int, **kwargs: Any) -> CONDRegular:  # noqa: ANN401
        raise InvalidInputError(
            "this conditioning carries a cast, but the connected model does not; connect the model output of the same "
            "Apply Cast node to the sampler, or use the conditioning from before that node"
        )

    def size(self) -> list[int]:
        return list(self.cond.tokens.shape)


def resolve_casts(
    conds: Mapping[str, list[dict[str, Any]]], key: str, latent: Extent
) -> tuple[dict[str, list[dict[str, Any]]], tuple[EncodedCast, ...]]:
    """Turns a run's pending casts into tensors that the host batches and crops.

    Each entry gets the row numbers of its identities in one table of tokens, and their regions on the latent. The host
    batches the row numbers, so that keys and values are projected only once for each row.

    Args:
        conds: the guider's conditioning, entries by name; it is not changed.
        key: name of the cast in `model_conds`.
        latent: size of the run's latent.
    Returns:
        The conditioning without pending casts of that key, and the parts of the table in the order of their rows.
    """
    first_rows: dict[EncodedCast, int] = {}

    def resolved(entry: dict[str, Any]) -> dict[str, Any]:
        pending = entry["model_conds"].get(key)
        if pending is None:
            return entry
        encoded: EncodedCast = pending.cond
        first = first_rows.setdefault(encoded, sum(len(earlier.tokens) for earlier in first_rows))
        rows = torch.arange(first, first + len(encoded.tokens))[None]
        model_conds = {name: value for name, value in entry["model_conds"].items() if name != key}
        model_conds[rows_key(key)] = CONDRegular(rows)
        model_conds[weights_key(key)] = CONDNoiseShape(encoded.weights(latent))
        return {**entry, "model_conds": model_conds}

    conds = {name: [resolved(entry) for entry in entries] for name, entries in conds.items()}
    return conds, tuple(first_rows)
