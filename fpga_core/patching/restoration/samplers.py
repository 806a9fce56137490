"""What inversion and restoration share as ComfyUI samplers. The host handles previews, progress and interrupts.

Attention is reached through a patch that each sampler adds to the options of its own run, so that nothing is ever left
on the model, whether a run succeeds, fails or is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.samplers import KSAMPLER, CFGGuider, KSamplerX0Inpaint
from torch import Tensor

from ...block_slots import BlockSlot
from ...errors import ShapeMismatchError
from ...restoration.inversion import Denoiser, InversionStep
from ...restoration.sampling import RestorationStep
from ...shapes import Extent, as_masks, cell_means

Callback = Callable[[int, Tensor, Tensor, int], None]
"""The host's `(step, x0, x, total_steps)`, which shows progress and previews and raises on interrupts."""

Options = dict[str, Any]


def denoiser(model: KSamplerX0Inpaint, extra_args: Options, attention: Callable[[Tensor, Options], Tensor]) -> Denoiser:
    """Wraps the host's guided model as `x0 = denoise(x, sigma)`, with a self-attention patch for this run only."""
    options = create_model_options_clone(extra_args["model_options"])
    patches = options.setdefault("transformer_options", {}).setdefault("patches", {})
    patches["attn1_output_patch"] = [*patches.get("attn1_output_patch", ()), attention]
    # A noise mask on the latent would mix the clean picture into every call and break the inversion.
    arguments = {**extra_args, "model_options": options, "denoise_mask": None}

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return model(x, sigma.expand(x.shape[0]), **arguments)

    return denoise


def slot_of(extra: Options) -> BlockSlot:
    """Returns the layer that the host's extra options of an attention patch name."""
    kind, number = extra["block"]
    return BlockSlot(kind, number, extra["block_index"])


def progress(done: int, step: InversionStep | RestorationStep) -> Options:
    """Reports a step to the host's callback."""
    return {"i": done, "x": step.latent, "denoised": step.x0, "sigma": step.sigma, "sigma_hat": step.sigma}


def mask_on_latent(mask: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """Averages a mask over latent pixels.

    Args:
        mask: (1 or batch, height, width) in [0, 1].
        latent_shape: (batch, channels, height, width).
    Returns:
        (batch, 1, height, width) float32.
    Raises:
        ShapeMismatchError: the number of masks or the aspect ratio does not fit.
    """
    (batch, _, height, width), mask = latent_shape, as_masks(mask)
    latent = Extent(width, height)
    if mask.shape[0] not in (1, batch):
        raise ShapeMismatchError(
            f"the mask has the shape {tuple(mask.shape)}, but the latent has {latent_shape}; connect one mask, or one "
            f"per picture ({batch})"
        )
    extent = Extent(mask.shape[2], mask.shape[1])
    if not extent.has_aspect_of(latent):
        raise ShapeMismatchError(
            f"the mask is {extent}, but the latent is {latent}, which has another aspect ratio; connect the mask of "
            "the picture that was encoded"
        )
    means = cell_means(mask.float().nan_to_num().clamp(0, 1)[:, None], latent)
    return means.expand(batch, 1, height, width)


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
