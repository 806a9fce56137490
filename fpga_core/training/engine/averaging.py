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
        on_cpu: whether the average is kept in CPU memory, which leaves a GPU more of its own and takes time.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, *, on_cpu: bool = False) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._means: dict[str, Tensor] = {}
        for name, value in parameters.items() if decay else ():
            self._means[name] = value.detach().to("cpu" if on_cpu else value.device, copy=True)
        self._arriving = torch.empty(0)
        if on_cpu and any(value.is_cuda for value in parameters.values()):  # pinned memory is filled much faster
            self._arriving = torch.empty(max(value.numel() for value in parameters.values()), pin_memory=True)

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Updates the average with the parameters after an iteration (from 0)."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        for name, mean in self._means.items():
            mean.lerp_(self._beside(mean, self._parameters[name]), 1 - decay)

    @contextmanager
    def applied(self) -> Generator[None, None, None]:
        """Replaces the parameters by their average within the block."""
        current = {
            name: self._parameters[name].detach().to(mean.device, copy=True) for name, mean in self._means.items()
        }
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

    def _beside(self, mean: Tensor, parameter: Tensor) -> Tensor:
        """Returns a parameter where its mean is."""
        if mean.device == parameter.device:
            return parameter
        return self._arriving[: parameter.numel()].view_as(parameter).copy_(parameter)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._parameters[name].copy_(value)
