"""A ControlNet's model with a cast in its cross attention.

The host does not pass `transformer_options` to a ControlNet's blocks. Its own forward therefore runs on a stand-in that
does. Neither its class nor its weights are touched, so other nodes can use the loaded ControlNet as before.
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

from ...errors import UnsupportedModeError
from ...identity.layer_emphasis import LayerEmphasis
from ...identity.masked_attention import add_identities, replace_by_identities
from ...shapes import Extent
from ..conditioning import check_latent
from .acting import let_identities_act
from .attention import CastCall, CastRun
from .conditioning import EncodedCast

POSITIVE, NEGATIVE = 0, 1


class CastSide(CONDRegular):
    """Which conditioning each picture of a batch belongs to, POSITIVE or NEGATIVE, as a tuple."""

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
    """A ControlNet's model with a cast in its cross attention, which the host calls in place of the model.

    Attributes:
        model: the ControlNet's own model.
        key: name of the `CastSide` in the conditioning.
        encoded: the casts of positive and negative.
        has_own_projections: whether the adapter's own projections are used; otherwise those of the layers are.
        replaces_text: whether the tokens take the place of the text; where nobody acts, the tokens of nobody do.
    """

    model: ControlNet
    key: str
    encoded: tuple[EncodedCast, EncodedCast]
    has_own_projections: bool
    replaces_text: bool
    _run: CastRun = field(init=False)
    _calls: dict[tuple[tuple[int, ...], torch.Size], CastCall] = field(init=False)

    def __post_init__(self) -> None:
        self.begin_run()

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def begin_run(self) -> None:
        """Forgets what was kept for the previous run: projected tokens, and regions on its grids."""
        self._run = CastRun(
            parts=self.encoded,
            has_own_projections=self.has_own_projections,
            emphasis=LayerEmphasis.UNIFORM,
            is_constant=True,
        )
        self._calls = {}

    def __call__(self, x: Tensor, context: Tensor, **inputs: Any) -> dict[str, list[Tensor]]:  # noqa: ANN401
        sides: tuple[int, ...] | None = inputs.pop(self.key, None)
        if sides is None:
            return self.model(x=x, context=context, **inputs)
        if self.replaces_text:
            no_one = self.encoded[NEGATIVE].tokens[:1]
            context = no_one.expand(len(x), -1, -1).to(context)
        check_latent(x, self.model.in_channels)
        if (sides, x.shape) not in self._calls:
            self._calls[sides, x.shape] = self._call(sides, x)
        join = replace_by_identities if self.replaces_text else add_identities
        options = let_identities_act(
            {}, self.model, run=self._run, call=self._calls[sides, x.shape], x=x, dtype=x.dtype, join=join
        )
        return forward_with_options(self.model, options, x=x, context=context, **inputs)

    def _call(self, sides: tuple[int, ...], x: Tensor) -> CastCall:
        positive, latent = self.encoded[POSITIVE], Extent(x.shape[-1], x.shape[-2])
        positive.check_fits(latent)
        num_identities = len(positive.tokens)
        rows = torch.tensor(sides)[:, None] * num_identities + torch.arange(num_identities)
        weights = positive.weights(latent)
        if self.replaces_text:
            weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)  # only the place of the text
        return self._run.call(rows, weights.repeat(len(x) // len(weights), 1, 1, 1), x)


def forward_with_options(
    model: ControlNet,
    transformer_options: Mapping[str, Any],
    **inputs: Any,  # noqa: ANN401
) -> dict[str, list[Tensor]]:
    """Runs a ControlNet's model with `transformer_options` for its blocks, as for those of a UNet.

    Args:
        model: the model of a ControlNet for SD1.5 or SDXL.
        transformer_options: options with the patches of its attention layers.
        inputs: inputs of the model's own forward.
    """
    stand_in = cast(ControlNet, _OptionsForBlocks(model, transformer_options))
    return type(model).forward(stand_in, **inputs)


class _OptionsForBlocks:
    """Stands in for a ControlNet's model in its own forward, and passes `transformer_options` to its blocks."""

    def __init__(self, model: ControlNet, options: Mapping[str, Any]) -> None:
        self._model = model
        self.input_blocks = [
            partial(block, transformer_options={**options, "block": ("input", number)})
            for number, block in enumerate(model.input_blocks)
        ]
        self.middle_block = partial(model.middle_block, transformer_options={**options, "block": ("middle", 0)})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._model, name)
