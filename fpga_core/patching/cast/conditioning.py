"""A cast inside ComfyUI's conditioning: tokens and regions that the host batches, crops and pairs like its own."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.conds import CONDNoiseShape, CONDRegular
from torch import Tensor

from ...errors import InvalidInputError, ShapeMismatchError
from ...identity.cast import Cast
from ...identity.people import NO_LAYERS, Projections
from ...shapes import PIXELS_PER_LATENT, Extent

KEY_PREFIX = "fpga_cast_"

logger = logging.getLogger(__name__)


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
class PlacedCast:
    """The people of one application of a cast, and where they act.

    Attributes:
        cast: where and how strongly each of them acts.
        strength: factor on the members' own strengths.
    """

    cast: Cast
    strength: float

    def check_fits(self, latent: Extent) -> None:
        """Raises unless the regions, which were made for a canvas, keep their shape on a latent.

        Raises:
            ShapeMismatchError: the canvas has another aspect ratio than the latent.
        """
        canvas = self.cast.extent
        off_by = abs(latent.width - latent.height * canvas.width / canvas.height)  # latent pixels: sizes are rounded
        has_regions = any(member.region is not None for member in self.cast.members)
        if has_regions and off_by > 1 and not latent.has_aspect_of(canvas):
            picture = Extent(latent.width * PIXELS_PER_LATENT, latent.height * PIXELS_PER_LATENT)
            raise ShapeMismatchError(
                f"the cast was made for a picture of {canvas}, but {picture} is sampled, so everyone would be out of "
                f"place; in Make Cast, set width and height to {picture.width} and {picture.height}, or connect the "
                "picture that is sampled to image. Nodes that sample parts of a picture (detailers, tiled upscalers) "
                "need the model and the prompts from before the cast; Restore Faces repairs the faces of a cast"
            )

    def weights(self, extent: Extent) -> Tensor:
        """Returns strength times region on a grid, (1, identities, height, width) float32."""
        strengths = torch.tensor([self.strength * member.strength for member in self.cast.members])
        return (self.cast.rasterise(extent) * strengths[:, None, None])[None]


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedCast(PlacedCast):
    """The part of a cast that one conditioning carries.

    Attributes:
        tokens: one set per member of the cast, (identities, num_tokens, token_dim).
        projected: what the adapter's own projections make of the tokens in each layer, (identities, num_tokens,
            inner_dim) float32; empty if the adapter has none.
    """

    tokens: Tensor
    projected: Projections = field(default_factory=lambda: NO_LAYERS)


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


def warn_of_prompts_without_cast(conds: Mapping[str, list[dict[str, Any]]], key: str) -> None:
    """Warns if a model carries a cast that the prompts of a run do not, or only one of them.

    Args:
        conds: the guider's conditioning, entries by name.
        key: name of the cast in `model_conds`.
    """
    without = [
        name
        for name, entries in conds.items()
        if name in ("positive", "negative") and not any(key in entry["model_conds"] for entry in entries)
    ]
    if "positive" in without:
        logger.warning(
            "the model carries a cast, but the prompts do not, so no identity acts; connect Apply Cast's positive and "
            "negative outputs to the sampler too"
        )
    elif without:
        logger.warning(
            "the model and the positive prompt carry a cast, but the negative prompt does not, so the identities act "
            "differently from how they were trained; connect Apply Cast's negative output to the sampler too"
        )


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
