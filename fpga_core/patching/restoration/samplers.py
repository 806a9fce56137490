"""DDIM inversion and restoration (Alg. 1) as ComfyUI samplers: previews, progress and interrupts are the host's.

Attention is reached through a patch that each sampler adds to the options of its own run, so that nothing is ever left
on the model, whether a run succeeds, fails or is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.samplers import KSAMPLER, CFGGuider, KSamplerX0Inpaint
from torch import Tensor
from tqdm.auto import tqdm

from ...block_slots import BlockSlot
from ...errors import InvalidInputError, ShapeMismatchError
from ...restoration.attention import AttentionFusion, AttentionRecorder, MaskOnGrids
from ...restoration.cache_plan import STYLE_SOURCES, AttentionLayer, CacheMode, CachePlan
from ...restoration.feature_cache import FeatureCache
from ...restoration.fusion import FusionSettings, StyleSource
from ...restoration.inversion import Denoiser, StepCounter, check_sigmas, invert
from ...restoration.sampling import restore
from ...shapes import Extent, as_masks, cell_means
from ..conditioning import Conditioning
from .checks import check_restoring_model, self_attention_layers

Callback = Callable[[int, Tensor, Tensor, int], None]
"""The host's `(step, x0, x, total_steps)`, which draws progress and previews and raises on interrupts."""

Options = dict[str, Any]

GUIDANCE_OPTIONS = (
    "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "disable_cfg1_optimization",
)  # fmt: skip
"""How nodes hook guidance into a model's options: an inversion runs without guidance, so without them."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """A finished inversion: what a restoration replays.

    Attributes:
        cache: latents and self-attention outputs; freed with this object.
        sigmas: (T + 1,) noise levels descending to 0, on the CPU.
        residuals: (T, batch) of the fixed-point repetitions, least noisy step first.
        layers: every self-attention layer of the model, in the order in which they run.
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
        """The largest of any step and picture."""
        return float(self.residuals.max())

    def of_items(self, items: Sequence[int]) -> Inversion:
        """The inversion of some items of the batch, on the same storage."""
        return Inversion(self.cache.of_items(items), self.sigmas, self.residuals[:, list(items)], self.layers)


@dataclass(frozen=True, eq=False)
class InversionSampler:
    """The inversion as a sampler function of the host; runs over ascending sigmas.

    Attributes:
        cache: is filled.
        repetitions: fixed-point repetitions per step.
        masks: on the latent, for statistics mode.
        residuals: one (batch,) tensor for each step done.
    """

    cache: FeatureCache
    repetitions: int
    masks: MaskOnGrids | None
    residuals: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def __call__(
        self, model: KSamplerX0Inpaint, x: Tensor, sigmas: Tensor, extra_args: Options | None = None,
        callback: Callable[[dict], None] | None = None, disable: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Inverts the clean latent x, (batch, channels, height, width), to the noisiest of the sigmas."""
        counter = StepCounter()
        recorder = AttentionRecorder(self.cache, counter, self.masks)
        prompts = model.inner_model.conds["positive"]

        def record(features: Tensor, extra: Options) -> Tensor:
            # With several prompts at once the features kept are those of the first.
            first = next((prompt["uuid"] for prompt in prompts if acts_at(prompt, extra["sigmas"])), None)
            for prompt, chunk in zip(extra["uuids"], features.chunk(len(extra["uuids"])), strict=True):
                if prompt == first:
                    recorder.record(chunk, slot_of(extra))
            return features

        arguments = extra_args or {}
        options = {name: value for name, value in arguments["model_options"].items() if name not in GUIDANCE_OPTIONS}
        denoise = denoiser(model, {**arguments, "model_options": options}, record)
        self.cache.record_latent(0, x)
        steps = invert(denoise, x, sigmas.flip(0), self.repetitions, counter)
        for step in tqdm(steps, total=len(sigmas) - 1, disable=disable):
            self.cache.record_latent(step.step, step.latent)
            self.residuals.append(step.residual.cpu())
            x = step.latent
            if callback is not None:
                callback(
                    {"i": step.step - 1, "x": x, "denoised": step.x0, "sigma": step.sigma, "sigma_hat": step.sigma}
                )
        return x


@dataclass(frozen=True, eq=False)
class RestorationSampler:
    """The restoration as a sampler function of the host; starts from the inverted noise, whatever noise it is given.

    Attributes:
        inversion: what is replayed.
        mask: M, (1 or batch, height, width) at any resolution of the latent's aspect ratio.
        settings: what is fused, when and how strongly.
        noise_strength: from 0 (the inverted noise, line 3 of Alg. 1) to 1 (other noise entirely).
        noise_seed: of that other noise.
    """

    inversion: Inversion
    mask: Tensor
    settings: FusionSettings
    noise_strength: float = 0.0
    noise_seed: int = 0

    @torch.no_grad()
    def __call__(
        self, model: KSamplerX0Inpaint, x: Tensor, sigmas: Tensor, extra_args: Options | None = None,
        callback: Callable[[dict], None] | None = None, disable: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Restores; x, (batch, channels, height, width), gives only shape and device.

        Raises:
            UnsupportedModeError, PatchConflictError: the model's self-attention cannot be reached.
            ShapeMismatchError: the latent or the mask does not fit the inversion.
            InvalidInputError: the sigmas are not those of the inversion.
        """
        check_restoring_model(model.inner_model.model_patcher)
        self._check(x, sigmas)
        counter, num_steps, cache = StepCounter(), len(sigmas) - 1, self.inversion.cache
        masks = MaskOnGrids(mask_on_latent(self.mask, self.inversion.latent_shape))
        layers = (layer.slot for n, layer in enumerate(self.inversion.layers) if self.settings.covers_layer(n))
        slots = frozenset(layers) if self.settings.attention_strength > 0 else frozenset()
        fusion = AttentionFusion(cache, counter, masks, self.settings, slots)

        def fuse(features: Tensor, extra: Options) -> Tensor:
            return fusion.fuse(features, slot_of(extra))

        denoise = denoiser(model, extra_args or {}, fuse)
        start = self._start(cache.latent(num_steps).to(x), sigmas[0])
        for step in tqdm(
            restore(denoise, cache, start, sigmas, masks, self.settings, counter), total=num_steps, disable=disable
        ):
            x, done = step.latent, num_steps - step.step
            if callback is not None:
                callback({"i": done, "x": x, "denoised": step.x0, "sigma": step.sigma, "sigma_hat": step.sigma})
        return x

    def _start(self, inverted: Tensor, sigma: Tensor) -> Tensor:
        """Z_T, or a mixture with fresh noise of the same deviation."""
        if self.noise_strength == 0:
            return inverted
        generator = torch.Generator().manual_seed(self.noise_seed)
        noise = torch.randn(inverted.shape, generator=generator).to(inverted)
        kept = (1 - self.noise_strength**2) ** 0.5
        return kept * inverted + self.noise_strength * sigma * noise

    def _check(self, x: Tensor, sigmas: Tensor) -> None:
        if tuple(x.shape) != self.inversion.latent_shape:
            raise ShapeMismatchError(
                f"the latent to restore is {tuple(x.shape)}, the inverted one was {self.inversion.latent_shape}: "
                "connect the latent output of the same Invert Latent"
            )
        inverted = self.inversion.sigmas
        if len(sigmas) != len(inverted) or not torch.allclose(sigmas.cpu().float(), inverted, rtol=1e-4):
            raise InvalidInputError(
                f"the sampler runs {len(sigmas) - 1} steps from sigma {float(sigmas[0]):.4g}, the inversion ran "
                f"{len(inverted) - 1} from {float(inverted[0]):.4g}: connect the same sigmas to both"
            )


def denoiser(model: KSamplerX0Inpaint, extra_args: Options, attention: Callable[[Tensor, Options], Tensor]) -> Denoiser:
    """The host's guided model as `x0 = denoise(x, sigma)`, with a patch on self-attention outputs for this run only."""
    options = create_model_options_clone(extra_args.get("model_options", {}))
    patches = options.setdefault("transformer_options", {}).setdefault("patches", {})
    patches["attn1_output_patch"] = [*patches.get("attn1_output_patch", ()), attention]
    # A noise mask on the latent would mix the clean picture into every call and break the inversion.
    arguments = {**extra_args, "model_options": options, "denoise_mask": None}

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return model(x, sigma.expand(x.shape[0]), **arguments)

    return denoise


def slot_of(extra: Options) -> BlockSlot:
    """The layer that the host calls an attention patch for."""
    block, number = extra["block"]
    return BlockSlot(block, number, extra["block_index"])


def acts_at(prompt: Options, sigmas: Tensor) -> bool:
    """Whether a conditioning that may be limited to a part of the steps acts at a noise level; the host's own rule."""
    first, last = prompt.get("timestep_start", float("inf")), prompt.get("timestep_end", 0.0)
    return last <= float(sigmas[0]) <= first


def mask_on_latent(mask: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """A mask averaged over latent pixels.

    Args:
        mask: (1 or batch, height, width) in [0, 1].
        latent_shape: (batch, channels, height, width).
    Returns:
        (batch, 1, height, width) float32.
    Raises:
        ShapeMismatchError: another number of masks, or another aspect ratio.
    """
    (batch, _, height, width), mask = latent_shape, as_masks(mask)
    if mask.shape[0] not in (1, batch):
        raise ShapeMismatchError(
            f"the mask has the shape {tuple(mask.shape)}, the latent {latent_shape}: connect one mask, or one per "
            f"picture ({batch})"
        )
    if not Extent(mask.shape[2], mask.shape[1]).has_aspect_of(Extent(width, height)):
        raise ShapeMismatchError(
            f"the mask is {mask.shape[2]}x{mask.shape[1]}, which is another aspect ratio than the latent's "
            f"{width}x{height}: connect the mask of the picture that was encoded"
        )
    resized = cell_means(mask.float().nan_to_num().clamp(0, 1)[:, None], Extent(width, height))
    return resized.expand(batch, 1, height, width)


def invert_latent(
    model: ModelPatcher,
    positive: Conditioning,
    latent: Tensor,
    sigmas: Tensor,
    repetitions: int,
    mode: CacheMode,
    budget_mib: int,
    mask: Tensor | None = None,
    settings: FusionSettings = FusionSettings(),  # noqa: B008 (frozen)
    sources: tuple[StyleSource, ...] = STYLE_SOURCES,
    is_half: bool = True,
    device_bytes: int = 0,
    callback: Callback | None = None,
) -> tuple[Tensor, Inversion]:
    """Inverts latents to noise without guidance and keeps what a restoration needs.

    Args:
        positive: prompts; features are kept for the first.
        latent: (batch, 4, height, width) as the VAE gives it.
        sigmas: (T + 1,) descending to 0, as the sampler will take them.
        repetitions: model calls per step beyond the first.
        mode: whole maps or statistics.
        budget_mib: the most that the cache may take.
        mask: (1 or batch, height, width); required in statistics mode.
        settings: only what such a restoration reads is kept.
        sources: in statistics mode, the style sources that it may choose from.
        is_half: keep maps in half precision.
        device_bytes: part of the cache that may stay on the model's device.
        callback: of the host.
    Returns:
        The inverted noise in the host's scale, and the inversion.
    Raises:
        UnsupportedModeError, PatchConflictError: the model's self-attention cannot be reached.
        InvalidInputError: the sigmas do not descend to 0, there is no prompt or mask, or the budget is too small;
            nothing is run.
        ShapeMismatchError: the latent does not fit the model, or the mask the latent.
    Source: FPGA Alg. 1, line 2.
    """
    check_restoring_model(model)
    check_sigmas(sigmas)
    channels = model.model.latent_format.latent_channels
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise ShapeMismatchError(
            f"the latent has the shape {tuple(latent.shape)}, the model works on (pictures, {channels}, height, "
            "width): encode the picture with this model's VAE"
        )
    if not positive:
        raise InvalidInputError("the positive conditioning is empty; connect a prompt")
    if mode is CacheMode.STATISTICS and mask is None:
        raise InvalidInputError("statistics mode measures inside and outside a mask: connect one, or choose full mode")
    shape = tuple(latent.shape)
    masks = None if mask is None else MaskOnGrids(mask_on_latent(mask, shape))
    layers = self_attention_layers(model, Extent(width=shape[-1], height=shape[-2]))
    plan = CachePlan.of(mode, layers, settings, len(sigmas) - 1, shape, cache_dtype(model, is_half), sources)
    with ExitStack() as on_failure:
        cache = on_failure.enter_context(FeatureCache(plan, budget_mib, device_bytes))
        sampler = InversionSampler(cache, repetitions, masks)
        guider = CFGGuider(model)
        guider.inner_set_conds({"positive": positive})  # no negative: guidance 1, as BasicGuider does
        inverted = _sample(guider, latent, sampler, sigmas.flip(0), callback)
        on_failure.pop_all()
    return inverted, Inversion(cache, sigmas.cpu().float(), torch.stack(sampler.residuals), layers)


def cache_dtype(model: ModelPatcher, is_half: bool) -> torch.dtype:
    """How maps are stored: in the model's own 16 bits where it has them, as conversion would only cost time."""
    if not is_half:
        return torch.float32
    return torch.bfloat16 if model.model.get_dtype_inference() is torch.bfloat16 else torch.float16


def restoration_sampler(inversion: Inversion, mask: Tensor, settings: FusionSettings) -> KSAMPLER:
    """The restoration as a SAMPLER of the host, for any node that samples."""
    return KSAMPLER(RestorationSampler(inversion, mask, settings))


def restore_latent(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    sampler: RestorationSampler,
    callback: Callback | None = None,
) -> Tensor:
    """Restores the latents of an inversion.

    Args:
        cfg: guidance scale.
        sampler: with the inversion, mask and settings.
        callback: of the host.
    Returns:
        (batch, 4, height, width) in the host's scale.
    Raises:
        As `RestorationSampler.__call__`.
    Source: FPGA Alg. 1, lines 3-9.
    """
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return _sample(guider, torch.zeros(sampler.inversion.latent_shape), sampler, sampler.inversion.sigmas, callback)


def _sample(
    guider: CFGGuider, latent: Tensor, function: Callable[..., Tensor], sigmas: Tensor, callback: Callback | None
) -> Tensor:
    samples = guider.sample(
        torch.zeros_like(latent), latent, KSAMPLER(function), sigmas, callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=0,
    )  # fmt: skip
    return samples.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())
