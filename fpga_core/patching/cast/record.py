"""Records which identity is active where, in one layer and one step of a sampling run (the paper's Fig. 6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...errors import InvalidInputError
from ...identity.attention_maps import AttentionMap
from ...shapes import Extent
from ..unet import cross_attention_layers, unet_of

RECORDS_OPTION = "fpga_attention_records"
"""The key of a run's records in `transformer_options`, which exists only in recorded runs."""

MAX_RUNS = 8
"""The runs that a record keeps, the latest ones."""


@dataclass(eq=False)
class RecordedRun:
    """What was recorded in one sampling run.

    Attributes:
        latent: size of the run's latent.
        sigmas: noise level of the recorded step, and of the following one.
        samples: the run's result, (batch, channels, height, width) on the CPU; None until it is finished.
        maps: (conditioning, picture, column) -> what an identity added.
    """

    latent: Extent
    sigmas: tuple[float, float]
    samples: Tensor | None = None
    maps: dict[tuple[object, int, int], AttentionMap] = field(default_factory=dict)

    def gave(self, samples: Tensor) -> bool:
        """Returns whether a latent is this run's result, which a sampler may have converted."""
        mine = self.samples
        return mine is not None and mine.shape == samples.shape and torch.equal(mine.to(samples), samples)


class AttentionRecord:
    """The record of a model's latest runs, each apart: a second pass does not replace the first.

    Args:
        layer: number of the cross-attention layer, from 0 in the order in which they run.
        step: number of the sampling step, from 0.
    """

    def __init__(self, layer: int, step: int) -> None:
        self.layer, self.step = layer, step
        self._runs: deque[RecordedRun] = deque(maxlen=MAX_RUNS)

    def maps_of(self, samples: Tensor) -> tuple[AttentionMap, ...]:
        """Returns one map per picture and person, in that order, of the run that gave a latent.

        Args:
            samples: a run's result, (batch, channels, height, width). If it is nobody's, because another node has
                changed it, the latest run is meant.
        Raises:
            InvalidInputError: the run is not finished, or no identity acted in that layer and step.
        """
        runs = list(reversed(self._runs))
        run = next((run for run in runs if run.gave(samples)), runs[0] if runs else None)
        if run is None or not run.maps:
            raise InvalidInputError(
                f"no identity was recorded in layer {self.layer} at step {self.step}; connect Record Attention's model "
                "to the sampler and the sampler's latent to Show Attention, and check that Apply Cast acts in that "
                "step (conditioning that is confined to an area is not recorded)"
            )
        return tuple(sorted(run.maps.values(), key=lambda recorded: (recorded.picture, recorded.number)))

    def begin(self, latent: Extent, sigmas: Tensor) -> RecordedRun:
        """Begins a run.

        Raises:
            InvalidInputError: the run is too short.
        """
        num_steps = len(sigmas) - 1
        if self.step >= num_steps:
            raise InvalidInputError(
                f"Record Attention asks for step {self.step}, but this run has {num_steps} (0 to {num_steps - 1}); "
                "lower the step"
            )
        run = RecordedRun(latent, (float(sigmas[self.step]), float(sigmas[self.step + 1])))
        self._runs.append(run)
        return run

    def wants(self, layer: int, extra_options: Mapping[str, Any]) -> bool:
        """Returns whether this is the layer and the step, in a call for the whole latent."""
        height, width = extra_options["original_shape"][-2:]
        run = self._runs[-1]
        if layer != self.layer or Extent(width, height) != run.latent:
            return False
        first, following = run.sigmas
        return following < float(extra_options["sigmas"][0]) <= first

    def keep(
        self,
        activity: Tensor,
        members: Sequence[Sequence[tuple[int, str]]],
        *,
        grid: Extent,
        extra_options: Mapping[str, Any],
    ) -> None:
        """Records what the identities of the positive conditionings did.

        Args:
            activity: (batch, identities, num_queries).
            members: number and name of each identity, for each entry of the batch.
            grid: grid of the queries.
            extra_options: options of the host, which say what each part of the batch is.
        """
        parts = list(zip(extra_options["cond_or_uncond"], extra_options["uuids"], strict=True))
        num_pictures = len(activity) // len(parts)
        for entry, (maps, named) in enumerate(zip(activity.float().cpu(), members, strict=True)):
            is_negative, conditioning = parts[entry // num_pictures]
            picture = entry % num_pictures
            for column, (queries, (number, name)) in enumerate(zip(maps, named, strict=True)):
                if not is_negative:
                    drawn = AttentionMap(picture, number, name, queries.reshape(grid.height, grid.width))
                    self._runs[-1].maps[conditioning, picture, column] = drawn


def record_attention(model: ModelPatcher, layer: int, step: int) -> tuple[ModelPatcher, AttentionRecord]:
    """Returns a clone of `model` that records one cross-attention layer in one step, before or after Apply Cast.

    Raises:
        InvalidInputError: the model has no such layer.
        UnsupportedModeError: the model is not a UNet.
    """
    num_layers = len(cross_attention_layers(unet_of(model)))
    if not 0 <= layer < num_layers:
        raise InvalidInputError(f"layer {layer} does not exist; this model has layers 0 to {num_layers - 1}")
    record = AttentionRecord(layer, step)

    def outer_sample(executor: WrapperExecutor, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        _latent_image, _sampler, sigmas = args[:3]
        run = record.begin(Extent(noise.shape[-1], noise.shape[-2]), sigmas)
        options = cast(CFGGuider, executor.class_obj).model_options["transformer_options"]
        options[RECORDS_OPTION] = (*options.get(RECORDS_OPTION, ()), record)
        samples = executor(noise, *args, **kwargs)
        run.samples = samples.detach().cpu()
        return samples

    recorded = model.clone()
    recorded.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, f"fpga_record_{uuid4().hex}", outer_sample)
    return recorded, record
