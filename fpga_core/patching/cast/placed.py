"""People in their places, in every call of a model: what ways of making them known have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from comfy.conds import CONDNoiseShape
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...shapes import Extent
from ..conditioning import Conditioning, add_cond, check_areas
from ..schedule import StepRange
from .attach import without_names
from .conditioning import PendingCast, PlacedCast, warn_of_prompts_without_cast, weights_key


class PendingPlaces(PendingCast):
    """A `PlacedCast` before the size of the run's latent is known."""

    def size(self) -> list[int]:
        return [1]


def place_people(conditioning: Conditioning, key: str, placed: PlacedCast) -> Conditioning:
    """Returns a prompt that carries people's places, for a model that a `PlacedPatch` of the same key patches."""
    return add_cond(conditioning, key, PendingPlaces(placed))


Call = Callable[..., Tensor]
"""The rest of a call of the model: transformer options and conditions by name -> what it predicts."""

Act = Callable[[Call, BaseModel, Tensor, dict[str, Any], dict[str, Any]], Tensor]
"""What people do in a call: the call, the model, the people's weights (batch, people, height, width) of the latent, and
the call's transformer options and conditions, both of which may be changed.
"""


@dataclass(frozen=True, kw_only=True)
class PlacedPatch:
    """One application of a cast to a model, with the functions that the host calls during sampling.

    Attributes:
        key: name of the cast in the conditioning, from `new_cast_key`.
        steps: the part of the schedule in which the people act.
        act: what they do in a call; outside the steps, their weights are 0.
    """

    key: str
    steps: StepRange
    act: Act

    def attach(self, model: ModelPatcher) -> None:
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, self.key, self.outer_sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, self.key, self.apply_model)

    def outer_sample(self, executor: WrapperExecutor, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Draws the regions on the run's latent, before the host crops or batches any conditioning."""
        guider = cast(CFGGuider, executor.class_obj)
        check_areas(guider.conds)
        warn_of_prompts_without_cast(guider.conds, self.key)
        latent = Extent(noise.shape[-1], noise.shape[-2])

        def drawn(entry: dict[str, Any]) -> dict[str, Any]:
            model_conds = dict(entry["model_conds"])
            if (pending := model_conds.pop(self.key, None)) is None:
                return entry
            placed: PlacedCast = pending.cond
            placed.check_fits(latent)
            weights = placed.weights(latent)
            frames = (1,) * (noise.ndim - weights.ndim)
            model_conds[weights_key(self.key)] = CONDNoiseShape(weights.unflatten(1, (-1, *frames)))
            return {**entry, "model_conds": model_conds}

        guider.conds = {name: [drawn(entry) for entry in entries] for name, entries in guider.conds.items()}
        return executor(noise, *args, **kwargs)

    def apply_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: Mapping[str, Any] = MappingProxyType({}),
        **conds: Any,  # noqa: ANN401
    ) -> Tensor:
        """Lets the people of this call act."""
        options, weights = without_names(transformer_options, self.key), conds.pop(weights_key(self.key), None)
        inputs = (c_concat, c_crossattn, control)  # wrappers of other packs may read them by position

        def call() -> Tensor:
            return executor(x, t, *inputs, options, **conds)

        if weights is None:
            return call()
        model = cast(BaseModel, executor.class_obj)
        acts = self.steps.is_whole_run or self.steps.contains(model.model_sampling, t)
        weights = weights.flatten(1, -3) if weights.ndim > 4 else weights
        return self.act(call, model, (weights * acts).to(x.device), options, conds)
