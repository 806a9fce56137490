"""Inversion and restoration as ComfyUI sampler functions. The host handles previews, progress and interrupts.

Attention is reached through a patch that each sampler adds to the options of its own run, so that nothing is ever left
on the model, whether a run succeeds, fails or is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import comfy.model_management
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.samplers import KSamplerX0Inpaint
from torch import Tensor
from tqdm.auto import tqdm

from ...block_slots import BlockSlot
from ...errors import ShapeMismatchError
from ...restoration.attention import AttentionFusion, AttentionRecorder, MaskOnGrids, StepCounter
from ...restoration.feature_cache import AttentionLayer, FeatureCache
from ...restoration.fusion import FusionSettings
from ...restoration.sampling import Denoiser, InversionStep, RestorationStep, invert, restore
from ...shapes import Extent, as_masks, cell_means
from ..conditioning import check_whole_picture
from ..families import AtLayer, Options
from .checks import family_of

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

        def record(features: Tensor, slot: BlockSlot, extra: Options) -> Tensor:
            if counter.current is None:
                return features
            for prompt, chunk in zip(extra["uuids"], features.chunk(len(extra["uuids"])), strict=True):
                if prompt == first[counter.current]:
                    recorder.record(chunk, slot)
            return features

        options = {name: value for name, value in extra_args["model_options"].items() if name not in GUIDANCE_OPTIONS}
        denoise = denoiser(model, {**extra_args, "model_options": options}, record, shape=x.shape)
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
        masks = MaskOnGrids(mask_on_latent(self.mask, cache.plan.latent_shape))
        layers = (layer.slot for n, layer in enumerate(self.inversion.layers) if self.settings.covers_layer(n))
        fusion = AttentionFusion(
            cache=cache,
            counter=counter,
            masks=masks,
            settings=self.settings,
            layers=frozenset(layers) if self.settings.attention_strength > 0 else frozenset(),
        )

        def fuse(features: Tensor, slot: BlockSlot, extra: Options) -> Tensor:
            return fusion.fuse(features, slot)

        steps = restore(
            denoiser(model, extra_args, fuse, shape=cache.plan.latent_shape),
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


def denoiser(model: KSamplerX0Inpaint, extra_args: Options, at_layer: AtLayer, *, shape: Sequence[int]) -> Denoiser:
    """Wraps the host's guided model as `x0 = denoise(x, sigma)` of latents of a shape, with a reach into self-attention
    for this run only.

    Raises:
        ShapeMismatchError: a prompt is confined to a part of the picture.
    """
    guider, latent = model.inner_model, Extent(width=shape[-1], height=shape[-2])
    check_whole_picture(guider.conds, latent)
    options, patcher = create_model_options_clone(extra_args["model_options"]), guider.model_patcher
    reached = options.get("transformer_options", {})
    options["transformer_options"] = family_of(patcher).reach(patcher, latent, options=reached, at_layer=at_layer)
    # A noise mask on the latent would mix the clean picture into every call and break the inversion.
    arguments = {**extra_args, "model_options": options, "denoise_mask": None}

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return model(x, sigma.expand(x.shape[0]), **arguments)

    return denoise


def progress(done: int, step: InversionStep | RestorationStep) -> Options:
    """Reports a step to the host's callback."""
    return {"i": done, "x": step.latent, "denoised": step.x0, "sigma": step.sigma, "sigma_hat": step.sigma}


def mask_on_latent(mask: Tensor, latent_shape: tuple[int, ...]) -> Tensor:
    """Averages a mask over latent pixels.

    Args:
        mask: (1 or batch, height, width) in [0, 1].
        latent_shape: (batch, channels, height, width), or with an axis of frames before the height.
    Returns:
        (batch, 1, height, width) float32.
    Raises:
        ShapeMismatchError: the number of masks or the aspect ratio does not fit.
    """
    (batch, *_, height, width), mask = latent_shape, as_masks(mask)
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
