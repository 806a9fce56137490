"""DDIM inversion (Alg. 1, line 2) as a ComfyUI sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider, KSamplerX0Inpaint
from torch import Tensor
from tqdm.auto import tqdm

from ...errors import InvalidInputError, ShapeMismatchError
from ...restoration.attention import AttentionRecorder, MaskOnGrids
from ...restoration.cache_plan import STYLE_SOURCES, AttentionLayer, CacheMode, CachePlan, fitting_mode
from ...restoration.feature_cache import FeatureCache
from ...restoration.fusion import FusionSettings, StyleSource
from ...restoration.inversion import StepCounter, check_sigmas, invert
from ...restoration.settings import InversionSettings
from ...shapes import Extent
from ..conditioning import Conditioning
from .checks import check_restoring_model, self_attention_layers
from .samplers import Callback, Options, denoiser, mask_on_latent, progress, sample, slot_of

GUIDANCE_OPTIONS = (
    "disable_cfg1_optimization",
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
)
"""Model options through which nodes change guidance. An inversion runs without guidance, and therefore without them."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """A finished inversion, which a restoration replays.

    Attributes:
        cache: latents and self-attention outputs, which are freed with this object.
        sigmas: (T + 1,) noise levels descending to 0, on the CPU.
        residuals: (T, batch) residuals of the fixed-point repetitions, least noisy step first.
        layers: every self-attention layer of the model, in running order.
    """

    cache: FeatureCache
    sigmas: Tensor
    residuals: Tensor
    layers: tuple[AttentionLayer, ...]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.cache.plan.latent_shape

    @property
    def residual(self) -> float:
        """The largest residual of any step and picture."""
        return float(self.residuals.max())

    def of_items(self, items: Sequence[int]) -> Inversion:
        """Returns the inversion of some items of the batch, on the same storage."""
        return Inversion(self.cache.of_items(items), self.sigmas, self.residuals[:, list(items)], self.layers)


@dataclass(frozen=True, eq=False)
class InversionSampler:
    """The inversion as a sampler function of the host, which runs over ascending sigmas.

    Attributes:
        cache: the cache to fill.
        repetitions: fixed-point repetitions per step.
        masks: the masks on the latent, for statistics mode.
        residuals: one (batch,) tensor for each finished step.
    """

    cache: FeatureCache
    repetitions: int
    masks: MaskOnGrids | None
    residuals: list[Tensor] = field(default_factory=list)

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
        """Inverts the clean latent x, (batch, channels, height, width), to the noisiest of the sigmas."""
        counter = StepCounter()
        recorder = AttentionRecorder(self.cache, counter, self.masks)
        prompts = model.inner_model.conds["positive"]
        # If there are several prompts, the features of the first are kept.
        first = [next((prompt["uuid"] for prompt in prompts if acts_at(prompt, s)), None) for s in sigmas.tolist()]

        def record(features: Tensor, extra: Options) -> Tensor:
            if counter.current is None:
                return features
            for prompt, chunk in zip(extra["uuids"], features.chunk(len(extra["uuids"])), strict=True):
                if prompt == first[counter.current]:
                    recorder.record(chunk, slot_of(extra))
            return features

        options = {name: value for name, value in extra_args["model_options"].items() if name not in GUIDANCE_OPTIONS}
        denoise = denoiser(model, {**extra_args, "model_options": options}, record)
        self.cache.record_latent(0, x)
        steps = invert(denoise, x, sigmas=sigmas.flip(0), repetitions=self.repetitions, counter=counter)
        for done, step in enumerate(tqdm(steps, total=len(sigmas) - 1, disable=disable)):
            self.cache.record_latent(step.step, step.latent)
            self.residuals.append(step.residual.cpu())
            x = step.latent
            if callback is not None:
                callback(progress(done, step))
        return x


def acts_at(prompt: Options, sigma: float) -> bool:
    """Returns whether a conditioning acts at a noise level, by the host's own rule."""
    first, last = prompt.get("timestep_start", float("inf")), prompt.get("timestep_end", 0.0)
    return last <= sigma <= first


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
        latent: (batch, 4, height, width) from the VAE.
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
    channels = model.model.latent_format.latent_channels
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise ShapeMismatchError(
            f"the latent has the shape {tuple(latent.shape)}, but the model needs (pictures, {channels}, height, "
            "width); encode the picture with this model's VAE"
        )
    if not positive:
        raise InvalidInputError("the positive conditioning is empty; connect a prompt")
    shape = tuple(latent.shape)
    masks = None if mask is None else MaskOnGrids(mask_on_latent(mask, shape))
    layers = self_attention_layers(model, Extent(width=shape[-1], height=shape[-2]))
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
        guider.inner_set_conds({"positive": positive})  # no negative: guidance 1, as BasicGuider does
        inverted = sample(guider, latent, sampler, sigmas=sigmas.flip(0), callback=callback)
        on_failure.pop_all()
    return inverted, Inversion(cache, sigmas.cpu().float(), torch.stack(sampler.residuals), layers)
