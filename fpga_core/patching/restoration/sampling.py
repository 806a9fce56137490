"""Runs inversion (Alg. 1, line 2) and restoration (lines 3-9) on ComfyUI's models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST
from comfy.samplers import KSAMPLER, CFGGuider, KSamplerX0Inpaint
from torch import Tensor

from ...errors import InvalidInputError, ShapeMismatchError
from ...restoration.attention import MaskOnGrids
from ...restoration.feature_cache import STYLE_SOURCES, CacheMode, CachePlan, FeatureCache, fitting_mode
from ...restoration.fusion import FusionSettings, StyleSource
from ...restoration.sampling import check_sigmas
from ...restoration.settings import InversionSettings
from ...shapes import Extent
from ..conditioning import Conditioning
from ..families import latent_shape
from .checks import check_restoring_model, family_of
from .samplers import Inversion, InversionSampler, RestorationSampler, mask_on_latent

INVERSION_GUIDANCE = 1.0
"""The embedded guidance of an inversion, which runs without any: as low as guidance-distilled models were trained."""

Callback = Callable[[int, Tensor, Tensor, int], None]
"""The host's `(step, x0, x, total_steps)`, which shows progress and previews and raises on interrupts."""


def invert_latent(
    model: ModelPatcher,
    positive: Conditioning,
    latent: Tensor,
    *,
    sigmas: Tensor,
    settings: InversionSettings,
    mask: Tensor | None = None,
    callback: Callback | None = None,
) -> tuple[Tensor, Inversion]:
    """Inverts latents to noise without guidance, and keeps everything that a restoration can need.

    Args:
        positive: prompts; the features of the first are kept.
        latent: (batch, channels, height, width) from the VAE; some have an axis of one frame before the height.
        sigmas: (T + 1,) descending to 0, equal to those of the sampler.
        settings: how the latents are inverted, and what is kept.
        mask: (1 or batch, height, width); required in statistics mode.
        callback: callback of the host.
    Returns:
        The inverted noise in the host's scale, and the inversion.
    Raises:
        UnsupportedModeError, PatchConflictError: the model's self-attention cannot be reached.
        InvalidInputError: the sigmas do not descend to 0.
        As `record_inversion`.
    Source: FPGA Alg. 1, line 2.
    """
    check_restoring_model(model)
    check_sigmas(sigmas)
    return record_inversion(
        model,
        positive,
        latent,
        sigmas=sigmas,
        settings=settings,
        fusion=FusionSettings(),
        sources=STYLE_SOURCES,
        mask=mask,
        callback=callback,
    )


def record_inversion(
    model: ModelPatcher,
    positive: Conditioning,
    latent: Tensor,
    *,
    sigmas: Tensor,
    settings: InversionSettings,
    fusion: FusionSettings,
    sources: tuple[StyleSource, ...],
    mask: Tensor | None,
    device_bytes: int = 0,
    callback: Callback | None = None,
) -> tuple[Tensor, Inversion]:
    """Does the work of `invert_latent`, after `check_restoring_model` and `check_sigmas` have passed.

    Args:
        fusion: only what a restoration with these settings reads is kept.
        sources: in statistics mode, the style sources that it can choose from.
        device_bytes: part of the cache that can stay on the model's device.
    Raises:
        InvalidInputError: there is no prompt or mask, or the budget is too small; the model is not run.
        ShapeMismatchError: the latent does not fit the model, or the mask the latent.
    """
    shape = tuple(latent.shape)
    extent = Extent(width=shape[-1], height=shape[-2])
    if shape != latent_shape(model, shape[0], extent):
        needed = ", ".join(map(str, latent_shape(model, 0, extent)[1:-2]))
        raise ShapeMismatchError(
            f"the latent has the shape {shape}, but the model needs (pictures, {needed}, height, width); encode the "
            "picture with this model's VAE"
        )
    if not positive:
        raise InvalidInputError("the positive conditioning is empty; connect a prompt")
    masks = None if mask is None else MaskOnGrids(mask_on_latent(mask, shape))
    layers = family_of(model).layers(model, extent)
    # If the model runs in 16 bits, maps are kept in its dtype, because a conversion would only cost time.
    dtype = torch.bfloat16 if model.model.get_dtype_inference() is torch.bfloat16 else torch.float16
    full = CachePlan.of(
        CacheMode.FULL,
        layers,
        settings=fusion,
        num_steps=len(sigmas) - 1,
        latent_shape=shape,
        dtype=dtype if settings.is_half else torch.float32,
        sources=sources,
    )
    wanted = CacheMode.FULL if settings.mode is CacheMode.AUTO and mask is None else settings.mode
    plan = replace(full, mode=fitting_mode(wanted, full, settings.budget_mib))
    if plan.mode is CacheMode.STATISTICS and mask is None:
        raise InvalidInputError(
            "statistics mode measures inside and outside a mask; connect a mask, or choose full mode"
        )
    with ExitStack() as on_failure:
        cache = on_failure.enter_context(FeatureCache(plan, budget_mib=settings.budget_mib, device_bytes=device_bytes))
        sampler = InversionSampler(cache, settings.repetitions, masks)
        guider = CFGGuider(model)
        told = without_guidance(model, positive)
        guider.inner_set_conds({"positive": told})  # no negative: guidance 1, as BasicGuider does
        inverted = sample(guider, latent, sampler, sigmas=sigmas.flip(0), callback=callback)
        if float(sigmas[0]) == 1 and isinstance(model.get_model_object("model_sampling"), CONST):
            # Nothing of the picture is left at the noisiest level of a flow, and the host divides by what is left.
            inverted = model.model.process_latent_out(cache.latent(len(sigmas) - 1)).to(inverted)
        on_failure.pop_all()
    return inverted, Inversion(cache, sigmas.cpu().float(), torch.stack(sampler.residuals), layers)


def without_guidance(model: ModelPatcher, positive: Conditioning) -> Conditioning:
    """Returns the prompt of an inversion, which runs without guidance; embedded guidance is as low as it can be."""
    if not family_of(model).embeds_guidance(model):
        return positive
    return [[text, {**options, "guidance": INVERSION_GUIDANCE}] for text, options in positive]


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
        inverted, latent_shape = self.sampler.inversion.sigmas, self.sampler.inversion.cache.plan.latent_shape
        if tuple(x.shape) != latent_shape:
            raise ShapeMismatchError(
                f"the latent to restore is {tuple(x.shape)}, but the inverted one was {latent_shape}; connect the "
                "latent output of the same Invert Latent"
            )
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
        The latents in the host's scale, in the shape that was inverted.
    Source: FPGA Alg. 1, lines 3-9.
    """
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    inversion = sampler.inversion
    blank = torch.zeros(inversion.cache.plan.latent_shape)
    return sample(guider, blank, sampler, sigmas=inversion.sigmas, callback=callback)


def sample(
    guider: CFGGuider,
    latent: Tensor,
    function: Callable[..., Tensor],
    *,
    sigmas: Tensor,
    callback: Callback | None,
) -> Tensor:
    noise, is_silent = torch.zeros_like(latent), not comfy.utils.PROGRESS_BAR_ENABLED
    samples = guider.sample(
        noise, latent, KSAMPLER(function), sigmas, callback=callback, disable_pbar=is_silent, seed=0
    )
    return samples.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())
