"""The part of a sampling run in which a patch acts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy.model_sampling import ModelSamplingDiscrete

from ..errors import InvalidInputError


@dataclass(frozen=True)
class StepRange:
    """A part of the sampling schedule, as fractions 0-1; 0 is the noisiest step."""

    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start_percent <= self.end_percent <= 1:
            raise InvalidInputError(
                f"start_percent is {self.start_percent} and end_percent is {self.end_percent}; both must be from 0 to "
                "1, and start_percent must not exceed end_percent"
            )

    @property
    def is_whole_run(self) -> bool:
        return self.start_percent == 0 and self.end_percent == 1

    def contains(self, model_sampling: ModelSamplingDiscrete, sigma: torch.Tensor) -> bool:
        """Returns whether the step at `sigma` (batch,) is in the range, by the rule of ComfyUI's ControlNets."""
        first, last = map(model_sampling.percent_to_sigma, (self.start_percent, self.end_percent))
        return last <= float(sigma[0]) <= first
