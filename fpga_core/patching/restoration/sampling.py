"""The restoration (Alg. 1, lines 3-9) as a ComfyUI sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER, CFGGuider, KSamplerX0Inpaint
from torch import Tensor
from tqdm.auto import tqdm

from ...errors import InvalidInputError, ShapeMismatchError
from ...restoration.attention import AttentionFusion, MaskOnGrids
from ...restoration.fusion import FusionSettings
from ...restoration.inversion import StepCounter
from ...restoration.sampling import restore
from ..conditioning import Conditioning
from .checks import check_restoring_model
from .inversion import Inversion
from .samplers import Callback, Options, denoiser, mask_on_latent, progress, sample, slot_of


@dataclass(frozen=True, eq=False, kw_only=True)
class RestorationSampler:
    """The restoration as a sampler function of the host. It starts from the inverted noise, whatever noise it is given.

    The model, the latent and the sigmas must be those of the inversion; `restoration_sampler` checks that.

    Attributes:
        inversion: the inversion to replay.
        mask: M, (1 or batch, height, width), at any resolution with the latent's aspect ratio.
        settings: what is fused, when, and how strongly.
        noise_strength: from 0 (the inverted noise, line 3 of Alg. 1) to 1 (other noise entirely).
        noise_seed: seed of that other noise.
    """

    inversion: Inversion
    mask: Tensor
    settings: FusionSettings
    noise_strength: float = 0.0
    noise_seed: int = 0

    @torch.no_grad()
    def __call__(
        self,
        model: KSamplerX0Inpaint,
        x: Tensor,
        sigmas: Tensor,
        *,
        extra_args: Options,
        callback: Callable[[Options], None] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        """Restores the latents; x, (batch, channels, height, width), only sets dtype and device.

        Raises:
            ShapeMismatchError: the mask does not fit the inversion.
        """
        counter, num_steps, cache = StepCounter(), len(sigmas) - 1, self.inversion.cache
        masks = MaskOnGrids(mask_on_latent(self.mask, self.inversion.latent_shape))
        layers = (layer.slot for n, layer in enumerate(self.inversion.layers) if self.settings.covers_layer(n))
        fusion = AttentionFusion(
            cache=cache,
            counter=counter,
            masks=masks,
            settings=self.settings,
            layers=frozenset(layers) if self.settings.attention_strength > 0 else frozenset(),
        )

        def fuse(features: Tensor, extra: Options) -> Tensor:
            return fusion.fuse(features, slot_of(extra))

        steps = restore(
            denoiser(model, extra_args, fuse),
            cache,
            start=self._start(cache.latent(num_steps).to(x), sigmas[0]),
            sigmas=sigmas,
            masks=masks,
            settings=self.settings,
            counter=counter,
        )
        for done, step in enumerate(tqdm(steps, total=num_steps, disable=disable)):
            x = step.latent
            if callback is not None:
                callback(progress(done, step))
        return x

    def _start(self, inverted: Tensor, sigma: Tensor) -> Tensor:
        """Returns Z_T, or a mixture with fresh noise of the same deviation."""
        if self.noise_strength == 0:
            return inverted
        generator = torch.Generator().manual_seed(self.noise_seed)
        noise = torch.randn(inverted.shape, generator=generator).to(inverted)
        kept = (1 - self.noise_strength**2) ** 0.5
        return kept * inverted + self.noise_strength * sigma * noise


@dataclass(frozen=True, eq=False)
class CheckedRestorationSampler:
    """A restoration for any sampling node. It checks that the node's inputs are those that were inverted."""

    sampler: RestorationSampler

    def __call__(self, model: KSamplerX0Inpaint, x: Tensor, sigmas: Tensor, **arguments: Any) -> Tensor:  # noqa: ANN401
        """Restores.

        Raises:
            UnsupportedModeError, PatchConflictError: the model's self-attention cannot be reached.
            ShapeMismatchError: the latent or the mask does not fit the inversion.
            InvalidInputError: the sigmas are not those of the inversion.
        """
        check_restoring_model(model.inner_model.model_patcher)
        inversion = self.sampler.inversion
        if tuple(x.shape) != inversion.latent_shape:
            raise ShapeMismatchError(
                f"the latent to restore is {tuple(x.shape)}, but the inverted one was {inversion.latent_shape}; "
                "connect the latent output of the same Invert Latent"
            )
        inverted = inversion.sigmas
        if len(sigmas) != len(inverted) or not torch.allclose(sigmas.cpu().float(), inverted, rtol=1e-4):
            raise InvalidInputError(
                f"the sampler runs {len(sigmas) - 1} steps from sigma {float(sigmas[0]):.4g}, but the inversion ran "
                f"{len(inverted) - 1} from {float(inverted[0]):.4g}; connect the same sigmas to both"
            )
        return self.sampler(model, x, sigmas, **arguments)


def restoration_sampler(inversion: Inversion, mask: Tensor, settings: FusionSettings) -> KSAMPLER:
    """Returns the restoration as a SAMPLER of the host, for any sampling node."""
    return KSAMPLER(CheckedRestorationSampler(RestorationSampler(inversion=inversion, mask=mask, settings=settings)))


def restore_latent(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    cfg: float,
    sampler: RestorationSampler,
    callback: Callback | None = None,
) -> Tensor:
    """Restores the latents of an inversion.

    Args:
        model: the model that was inverted; the conditioning can differ.
        cfg: guidance scale.
        sampler: the sampler with its inversion, mask and settings.
        callback: callback of the host.
    Returns:
        (batch, 4, height, width) in the host's scale.
    Source: FPGA Alg. 1, lines 3-9.
    """
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    blank = torch.zeros(sampler.inversion.latent_shape)
    return sample(guider, blank, sampler, sigmas=sampler.inversion.sigmas, callback=callback)
