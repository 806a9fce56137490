"""The running mean of the trained parameters (EMA)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class ParameterAverage:
    """An exponential moving average of parameters; the first steps weigh more, so that the start is soon forgotten.

    Args:
        parameters: name -> parameter; the average starts as a copy.
        decay: of the average; with 0 it is the parameters themselves, and costs nothing.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._means = {name: value.detach().clone() for name, value in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Updates the average with the parameters after an iteration (from 0)."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        for name, mean in self._means.items():
            mean.lerp_(self._parameters[name], 1 - decay)

    @contextmanager
    def applied(self) -> Generator[None, None, None]:
        """Replaces the parameters by their average within the block."""
        current = {name: self._parameters[name].detach().clone() for name in self._means}
        self._copy(self._means)
        try:
            yield
        finally:
            self._copy(current)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._means)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, mean in self._means.items():
            mean.copy_(state[name])

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._parameters[name].copy_(value)
