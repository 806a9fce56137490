"""The two runs of DIIR: the inversion to the noise that leads back (Alg. 1, line 2), and the restoration (lines 3-9).

In sigma space a latent is `x = x0 + sigma * noise`, and DDIM (Song et al. 2020, Eq. 12 with eta = 0) is Euler's method
on `dx/dsigma = noise`. Models are used only as `x0 = denoise(x, sigma)`, so eps- and v-prediction need no separate
cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..errors import InvalidInputError
from .attention import MaskOnGrids, StepCounter
from .feature_cache import FeatureCache
from .fusion import FusionSettings, fuse_latent

vector_norm = cast(Callable[..., Tensor], torch.linalg.vector_norm)  # pyright: ignore[reportUnknownMemberType]
"""torch declares no types for it."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""`x0 = denoise(x, sigma)`: x (batch, channels, height, width) in sigma space, sigma a scalar; returns x's shape."""


@dataclass(frozen=True, eq=False)
class InversionStep:
    """One finished step of the inversion.

    Attributes:
        step: t, from 1 to T.
        sigma: noise level of `latent`.
        latent: Z_t, (batch, channels, height, width).
        x0: the model's estimate of the clean latent, same shape.
        residual: (batch,) relative change `|Z - Z'| / |Z|` of the last repetition, which shows how far the evaluated
            latent is from solving the step exactly.
    """

    step: int
    sigma: Tensor
    latent: Tensor
    x0: Tensor
    residual: Tensor


def check_sigmas(sigmas: Tensor) -> None:
    """Raises unless sigmas descend to zero.

    Args:
        sigmas: (steps + 1,) noise levels of the sampler, noisiest first.
    Raises:
        InvalidInputError: there are fewer than two, they do not strictly descend, or they do not end at 0.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise InvalidInputError(
            f"sigmas has the shape {tuple(sigmas.shape)}, but an inversion needs at least one step; connect a scheduler"
        )
    if not bool((sigmas[:-1] > sigmas[1:]).all()):
        raise InvalidInputError("sigmas must descend from step to step, with the noisiest first; connect a scheduler")
    if float(sigmas[-1]) != 0.0:
        raise InvalidInputError(
            f"sigmas end at {float(sigmas[-1]):.4g}, but they must end at 0, at the clean picture; use the full "
            "schedule and not a part of it"
        )


def invert(
    denoise: Denoiser, latent: Tensor, *, sigmas: Tensor, repetitions: int, counter: StepCounter
) -> Iterator[InversionStep]:
    """Runs DDIM backwards, so that sampling from its end with the same sigmas returns to `latent`.

    Sampling step t evaluates the model at (Z_t, sigma_t), which the inversion does not know yet. It solves `Z_t =
    Z_{t-1} + (sigma_t - sigma_{t-1}) * noise(Z_t, sigma_t)` with fixed-point repetitions, which start with the noise of
    the previous step. The features of the last evaluation are therefore those that sampling step t will see.

    Args:
        denoise: the model.
        latent: Z_0, (batch, channels, height, width).
        sigmas: (T + 1,) descending to 0, equal to those of the sampler.
        repetitions: model calls per step after the first.
        counter: set to t during the last call of step t, for the patches that record features.
    Yields:
        Steps 1 to T.
    Source: FPGA Alg. 1, line 2; fixed-point repetitions as in AIDI (Pan et al. 2023).
    """
    check_sigmas(sigmas)
    ascending = sigmas.flip(0)
    z, noise = latent, torch.zeros_like(latent)
    for step in range(1, len(ascending)):
        sigma_before, sigma = ascending[step - 1], ascending[step]
        z_next = z + (sigma - sigma_before) * noise
        for _ in range(repetitions):
            noise = (z_next - denoise(z_next, sigma)) / sigma
            z_next = z + (sigma - sigma_before) * noise
        z_eval = z_next
        with counter.at(step):
            x0 = denoise(z_eval, sigma)
        noise = (z_eval - x0) / sigma
        z_next = z + (sigma - sigma_before) * noise
        residual = vector_norm((z_next - z_eval).flatten(1), dim=1) / vector_norm(z_next.flatten(1), dim=1)
        z = z_next
        yield InversionStep(step, sigma, z, x0, residual)


@dataclass(frozen=True, eq=False)
class RestorationStep:
    """One finished step t of the restoration: Z_{t-1}, and the model's estimate of the clean latent that led there."""

    step: int
    sigma: Tensor
    latent: Tensor
    x0: Tensor


def restore(
    denoise: Denoiser,
    cache: FeatureCache,
    *,
    start: Tensor,
    sigmas: Tensor,
    masks: MaskOnGrids,
    settings: FusionSettings,
    counter: StepCounter,
) -> Iterator[RestorationStep]:
    """Samples from the inverted noise, and fuses the cached run into it.

    Args:
        denoise: the model with its identity and condition image, and a patch that fuses its self-attention outputs
            while `counter` is set.
        cache: latents of the inversion.
        start: Z_T, (batch, channels, height, width) in sigma space.
        sigmas: (T + 1,) descending to 0, equal to those of the inversion.
        masks: M.
        settings: what is fused, when, and how strongly.
        counter: set to t during the model call of a fused step t.
    Yields:
        Steps T to 1.
    Source: FPGA Alg. 1, lines 3-9.
    """
    num_steps = len(sigmas) - 1
    z = start  # line 3
    for step in range(num_steps, 0, -1):  # line 5
        sigma, sigma_next = sigmas[num_steps - step], sigmas[num_steps - step + 1]
        is_fused = settings.covers_step(step, num_steps)
        with counter.at(step if is_fused else None):
            x0 = denoise(z, sigma)  # lines 4, 6 and 7: the patch fuses inside
        z = z + (sigma_next - sigma) * (z - x0) / sigma
        if is_fused and settings.latent_strength > 0:
            mask = masks.on(z.shape[-2:].numel(), z.device)
            z = fuse_latent(z, cache.latent(step - 1).to(z), mask=mask, settings=settings)  # line 8
        yield RestorationStep(step, sigma, z, x0)
