"""A ControlNet's model with a cast in its cross attention.

The host hands a ControlNet's blocks no `transformer_options`. Its own forward is therefore run on a stand-in that does;
neither its class nor its weights are touched, so the loaded ControlNet serves other nodes as it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from comfy.cldm.cldm import ControlNet
from comfy.conds import CONDRegular
from torch import Tensor

from ...block_slots import BlockSlot
from ...errors import UnsupportedModeError
from ...identity.adapters import KeyValue
from ...identity.layer_emphasis import LayerEmphasis
from ...identity.masked_attention import add_identities, replace_by_identities
from ...shapes import Extent
from ..unet import cross_attention_layers
from .attention import CastCall, CastRun, IdentityAttention
from .conditioning import EncodedCast
from .slots import claim_slots

POSITIVE, NEGATIVE = 0, 1


class CastSide(CONDRegular):
    """Which of the two conditionings each picture of a batch belongs to, POSITIVE or NEGATIVE; a tuple."""

    def process_cond(self, batch_size: int, area: object = None, **kwargs: Any) -> CastSide:  # noqa: ANN401
        if area is not None:
            raise UnsupportedModeError(
                "a cast inside a ControlNet cannot follow conditioning that is confined to an area, because ComfyUI "
                "fits the whole condition image into the area and does not report its place; use a mask instead of the "
                "area, or Apply Cast on the model"
            )
        return CastSide(self.cond * batch_size)

    def can_concat(self, other: CastSide) -> bool:
        return True

    def concat(self, others: list[CastSide]) -> tuple[int, ...]:
        return tuple(side for part in (self, *others) for side in part.cond)

    def size(self) -> list[int]:
        return [len(self.cond)]


@dataclass(eq=False, kw_only=True)
class CastControlModel:
    """A ControlNet's model with a cast in its cross attention; the host calls it in the model's place.

    Attributes:
        model: the ControlNet's own.
        key: names the `CastSide` in the conditioning.
        encoded: what positive and negative carry.
        projections: the adapter's own for the ControlNet's layers; None: those of the layers themselves.
        replaces_text: whether the tokens stand in the text's place; where nobody acts, it is the tokens of no one.
    """

    model: ControlNet
    key: str
    encoded: tuple[EncodedCast, EncodedCast]
    projections: Mapping[BlockSlot, KeyValue] | None
    replaces_text: bool
    _run: CastRun = field(init=False)

    def __post_init__(self) -> None:
        self.begin_run()

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def begin_run(self) -> None:
        """Forgets what was kept for the run before: projected tokens and regions drawn on its grids."""
        self._run = CastRun(
            projections=self.projections, parts=self.encoded, emphasis=LayerEmphasis.UNIFORM, is_constant=True
        )

    def __call__(self, x: Tensor, context: Tensor, **inputs: Any) -> dict[str, list[Tensor]]:  # noqa: ANN401
        sides: tuple[int, ...] | None = inputs.pop(self.key, None)
        if sides is None:
            return self.model(x=x, context=context, **inputs)
        if self.replaces_text:
            no_one = self.encoded[NEGATIVE].tokens[:1]
            context = no_one.expand(len(x), -1, -1).to(context)
        layers = cross_attention_layers(self.model)
        join = replace_by_identities if self.replaces_text else add_identities
        attach = partial(IdentityAttention, run=self._run, call=self._call(sides, x), layers=layers, join=join)
        options = claim_slots({}, layers, attach)
        return forward_with_options(self.model, options, x=x, context=context, **inputs)

    def _call(self, sides: tuple[int, ...], x: Tensor) -> CastCall:
        positive = self.encoded[POSITIVE]
        num_identities = len(positive.tokens)
        rows = torch.tensor(sides)[:, None] * num_identities + torch.arange(num_identities)
        weights = positive.weights(Extent(x.shape[-1], x.shape[-2]))
        if self.replaces_text:
            weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)  # nothing more than the text's place
        return self._run.call(rows, weights.repeat(len(x) // len(weights), 1, 1, 1), x)


def forward_with_options(
    model: ControlNet,
    transformer_options: Mapping[str, Any],
    **inputs: Any,  # noqa: ANN401
) -> dict[str, list[Tensor]]:
    """What a ControlNet's model gives if its blocks get `transformer_options`, as those of a UNet do.

    Args:
        model: of a ControlNet of SD1.5 or SDXL.
        transformer_options: with the patches of its attention layers.
        inputs: of the model's own forward.
    """
    stand_in = cast(ControlNet, _OptionsForBlocks(model, transformer_options))
    return type(model).forward(stand_in, **inputs)


class _OptionsForBlocks:
    """Stands in for a ControlNet's model in its own forward; its blocks are called with `transformer_options`."""

    def __init__(self, model: ControlNet, options: Mapping[str, Any]) -> None:
        self._model = model
        self.input_blocks = [
            partial(block, transformer_options={**options, "block": ("input", number)})
            for number, block in enumerate(model.input_blocks)
        ]
        self.middle_block = partial(model.middle_block, transformer_options={**options, "block": ("middle", 0)})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._model, name)
