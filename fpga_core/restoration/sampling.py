"""The restoration itself, lines 3 to 9 of Alg. 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .attention import MaskOnGrids
from .feature_cache import FeatureCache
from .fusion import FusionSettings, fuse_latent
from .inversion import Denoiser, StepCounter


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
