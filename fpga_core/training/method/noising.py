"""The forward process: the noise that is added to a picture, and what the network has to predict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Prediction(str, Enum):
    """What a network predicts."""

    EPS = "eps"
    V = "v"


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete schedule of noise.

    Attributes:
        alphas_cumprod: share of the picture in the variance at each timestep, (num_timesteps,), which falls from almost
            1.
        prediction: what the network predicts.
    """

    alphas_cumprod: Tensor
    prediction: Prediction

    @classmethod
    def from_sigmas(cls, sigmas: Tensor, prediction: Prediction) -> NoiseSchedule:
        """Returns the schedule of a network with ComfyUI's noise levels, `sigma^2 = (1 - a) / a`."""
        return cls(1 / (1 + sigmas.detach().cpu().double() ** 2), prediction)

    def draw_timesteps(self, num: int, generator: torch.Generator) -> Tensor:
        """Timesteps, each equally likely, (num,) int64 on the generator's device."""
        return torch.randint(len(self.alphas_cumprod), (num,), generator=generator, device=generator.device)

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Computes the network's input, `sqrt(a) z0 + sqrt(1 - a) eps`.

        Args:
            latents: z0, (batch, channels, height, width).
            noise: eps, the same shape.
            timesteps: (batch,) on any device.
        Returns:
            The same shape.
        """
        signal, spread = self._coefficients(timesteps, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Computes what the network has to predict: eps, or `v = sqrt(a) eps - sqrt(1 - a) z0`.

        Args:
            latents, noise, timesteps: as in `noised`.
        Returns:
            The same shape.
        """
        if self.prediction is Prediction.EPS:
            return noise
        signal, spread = self._coefficients(timesteps, latents)
        return signal * noise - spread * latents

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Computes the weights of timesteps in the loss that keep those with little noise from ruling it.

        Args:
            timesteps: (batch,) on any device.
            gamma: the signal-to-noise ratio above which a picture's own loss, that of z0, weighs no more.
        Returns:
            (batch,), float64 on the CPU: `min(SNR, gamma)` over what the prediction weighs by itself, SNR for eps and
            SNR + 1 for v.
        Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023, section 3.4.
        """
        alphas = self.alphas_cumprod[timesteps.cpu()]
        ratios = alphas / (1 - alphas)
        if self.prediction is Prediction.EPS:
            return (gamma / ratios).clamp(max=1)
        return ratios.clamp(max=gamma) / (ratios + 1)

    def _coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod[timesteps.cpu()][:, None, None, None]
        return alphas.sqrt().to(like), (1 - alphas).sqrt().to(like)


def draw_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws unit normal noise of a tensor's shape, dtype and device on the generator's device."""
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)
