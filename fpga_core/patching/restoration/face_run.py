"""Takes cropped faces through inversion and restoration, many at once, each with its own identity and landmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import cast

import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...faces.drawing import FaceStyle
from ...restoration.cache_plan import MIB, CacheMode, CachePlan
from ...restoration.fusion import FusionSettings
from ...restoration.matching import MatchBy
from ...shapes import Extent
from ..conditioning import Conditioning
from .checks import self_attention_layers
from .face_conditioning import ActingFaces, FaceControl, FaceIdentities
from .people import People, Subject
from .samplers import Callback, Inversion, RestorationSampler, invert_latent, restore_latent

MEMORY_MARGIN = 1.5
"""The host's own factor between what it estimates a model call to need and what it requires to be free."""

MakeCallback = Callable[[ModelPatcher, int], Callback]
"""The host's progress callback for a model and a number of steps."""


class IdentityIn(str, Enum):
    """Where an identity acts."""

    UNET = "unet"
    CONTROLNET = "controlnet"
    BOTH = "both"


@dataclass(frozen=True)
class RestoreSettings:
    """How faces are restored.

    Attributes:
        steps, cfg, scheduler: of the restoration; the inversion runs the same steps without guidance.
        seed: of the noise that retries add.
        repetitions: fixed-point repetitions of the inversion.
        fusion: style source, strengths, ranges.
        mode: what the cache keeps.
        budget_mib: the most that it may take.
        identity_strength: 1 = as the adapter was trained.
        identity_in: the model, the ControlNet, or both.
        match_by: how faces and identities find each other.
        style: how landmarks are drawn for the control.
        are_colors_matched: give crops the colours of the original before they are pasted.
        retry_below: faces with a lower FaceSim are restored again; 0 = never.
        max_retries: how often.
    """

    steps: int = 30
    cfg: float = 5.0
    scheduler: str = "normal"
    seed: int = 0
    repetitions: int = 1
    fusion: FusionSettings = FusionSettings()
    mode: CacheMode = CacheMode.FULL
    budget_mib: int = 2048
    identity_strength: float = 1.0
    identity_in: IdentityIn = IdentityIn.UNET
    match_by: MatchBy = MatchBy.AUTO
    style: FaceStyle = FaceStyle.OPENPOSE
    are_colors_matched: bool = False
    retry_below: float = 0.0
    max_retries: int = 3


@dataclass(frozen=True)
class Rung:
    """What changes from try to try; the inversion itself is deterministic, so repeating it changes nothing."""

    identity_factor: float
    style_factor: float
    noise_strength: float


def ladder(retry: int) -> Rung:
    """The rungs: stronger identity, then weaker style too, then ever more fresh noise as well.

    Args:
        retry: 0 for the first try.
    """
    first = (Rung(1.0, 1.0, 0.0), Rung(1.25, 1.0, 0.0), Rung(1.5, 0.5, 0.0))
    return first[retry] if retry < len(first) else Rung(1.5, 0.5, min(0.2 * (retry - 2), 0.8))


@dataclass(frozen=True, eq=False)
class RestoredCrop:
    """One restored face.

    Attributes:
        crop: (size, size, 3) in [0, 1], on the CPU.
        before, after: FaceSim; None where it cannot be measured.
        num_tries: restorations made, of which this was the best.
        residual: the largest of the inversion's steps.
    """

    crop: Tensor
    before: float | None
    after: float | None
    num_tries: int
    residual: float

    def is_below(self, facesim: float) -> bool:
        return self.after is not None and self.after < facesim


@dataclass(frozen=True, eq=False)
class FaceRun:
    """Everything that the faces of one restoration have in common.

    Attributes:
        model: plain.
        positive, negative: without what is tied to places of the picture.
        people: None = restored by the prompt alone.
        control: None = nothing keeps the pose but the inversion.
    """

    model: ModelPatcher
    vae: VAE
    positive: Conditioning
    negative: Conditioning
    settings: RestoreSettings
    people: People | None
    control: FaceControl | None
    make_callback: MakeCallback | None

    @property
    def sigmas(self) -> Tensor:
        """Noise levels of the steps; some schedulers make one step more than they are asked for."""
        sampling = self.model.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, self.settings.scheduler, self.settings.steps)

    def restore(self, crops: Tensor, subjects: Sequence[Subject]) -> list[RestoredCrop]:
        """Restores faces in batches that fit the memory; one patched model serves them all.

        Args:
            crops: (num_faces, size, size, 3).
            subjects: whose they are.
        """
        if not subjects:
            return []
        model, identities = self.model, None
        if self.control is not None:
            model = self.control.attach(model)
        if self.people is not None:
            identities = FaceIdentities.encode(self.people.adapter, self.people.cast)
            if self.settings.identity_in is not IdentityIn.CONTROLNET:
                model = identities.attach(model)
        latents = self.vae.encode(crops)
        return [
            restored
            for part in self._batches(model, latents)
            for restored in FaceBatch(self, model, identities, crops[part], subjects[part]).restore(latents[part])
        ]

    def _batches(self, model: ModelPatcher, latents: Tensor) -> Iterator[slice]:
        """Faces that go through the model at once: as many as memory and the cache's budget allow, at least one.

        The host splits cond from uncond where memory is short, but never a batch of latents.
        """
        one = (1, *latents.shape[1:])
        layers = self_attention_layers(model, Extent(width=latents.shape[-1], height=latents.shape[-2]))
        fusion, num_steps = self.settings.fusion, len(self.sigmas) - 1
        plan = CachePlan.of(self.settings.mode, layers, fusion, num_steps, one, sources=fusion.sources)
        by_memory = int(free_bytes(model) // call_bytes(model, one))
        by_budget = self.settings.budget_mib * MIB // plan.num_bytes
        size = max(min(by_memory, by_budget), 1)
        for start in range(0, len(latents), size):
            yield slice(start, start + size)


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """Faces that go through the model at once."""

    run: FaceRun
    model: ModelPatcher
    identities: FaceIdentities | None
    crops: Tensor
    subjects: Sequence[Subject]

    def restore(self, latents: Tensor) -> list[RestoredCrop]:
        """Inverts the faces once, restores them, and restores the weak ones again; the cache ends with it."""
        settings, people = self.run.settings, self.run.people
        everyone = range(len(self.subjects))
        before = people.facesim(self.crops, self.subjects) if people else [None] * len(self.subjects)
        inversion = self._invert(latents)
        residuals = inversion.residuals.max(dim=0).values.tolist()
        with inversion.cache:
            crops, scores = self._try(inversion, everyone, ladder(0), settings.seed)
            best = [RestoredCrop(crops[n], before[n], scores[n], 1, residuals[n]) for n in everyone]
            for retry in range(1, settings.max_retries + 1):
                weak = [n for n in everyone if best[n].is_below(settings.retry_below)]
                if not weak:
                    break
                crops, scores = self._try(
                    inversion.of_items(weak), weak, ladder(retry), (settings.seed + retry) % 2**64
                )
                for n, crop, score in zip(weak, crops, scores, strict=True):
                    tried = replace(best[n], num_tries=retry + 1)
                    is_better = score is not None and tried.is_below(score)
                    best[n] = replace(tried, crop=crop, after=score) if is_better else tried
        return best

    def _invert(self, latents: Tensor) -> Inversion:
        """With the landmarks, since a folded RepControlNet expects them, and without identity: line 2 of Alg. 1."""
        settings, model = self.run.settings, self.model
        positive, _ = self._conditioning(range(len(self.subjects)), None)
        spare = free_bytes(model) - len(latents) * call_bytes(model, latents.shape)
        spare -= comfy.model_management.minimum_inference_memory()
        return invert_latent(
            model, positive, latents, self.run.sigmas, settings.repetitions, settings.mode, settings.budget_mib,
            self._masks(), settings.fusion, settings.fusion.sources, device_bytes=max(int(spare), 0),
            callback=self._callback(),
        )[1]  # fmt: skip

    def _try(
        self, inversion: Inversion, items: Sequence[int], rung: Rung, seed: int
    ) -> tuple[Tensor, list[float | None]]:
        """Restores some faces of the batch; the crops and their FaceSims."""
        settings, subjects = self.run.settings, [self.subjects[n] for n in items]
        masks, acting = self._masks()[list(items)], None
        strength = settings.identity_strength * rung.identity_factor
        if self.identities is not None and strength != 0:
            who = [subject.match.identity for subject in subjects if subject.match]
            acting = self.identities.in_crops(who, masks, strength)
        positive, negative = self._conditioning(items, acting)
        fusion = replace(settings.fusion, style_strength=settings.fusion.style_strength * rung.style_factor)
        sampler = RestorationSampler(inversion, masks, fusion, rung.noise_strength, seed)
        latents = restore_latent(self.model, positive, negative, settings.cfg, sampler, self._callback())
        crops = self.run.vae.decode(latents)[..., :3].float().cpu().clamp(0, 1)
        people = self.run.people
        return crops, people.facesim(crops, subjects) if people else [None] * len(subjects)

    def _conditioning(self, items: Sequence[int], acting: ActingFaces | None) -> tuple[Conditioning, Conditioning]:
        """Prompts with the landmarks of some faces of the batch, and with their identities where they act."""
        positive, negative, where = self.run.positive, self.run.negative, self.run.settings.identity_in
        if self.identities is not None and acting is not None and where is not IdentityIn.CONTROLNET:
            positive, negative = self.identities.condition(positive, negative, acting)
        if self.run.control is None:
            return positive, negative
        hints = torch.stack([self.subjects[n].hint for n in items])
        inside = None if where is IdentityIn.UNET else acting
        return self.run.control.condition(self.model, positive, negative, hints, inside)

    def _masks(self) -> Tensor:
        return torch.stack([subject.mask for subject in self.subjects])

    def _callback(self) -> Callback | None:
        make = self.run.make_callback
        return None if make is None else make(self.model, len(self.run.sigmas) - 1)


def call_bytes(model: ModelPatcher, latent_shape: Sequence[int]) -> float:
    """What a model call with cond and uncond of one latent takes, by the host's estimate and margin."""
    return model.model.memory_required([2, *latent_shape[1:]]) * MEMORY_MARGIN


def free_bytes(model: ModelPatcher) -> float:
    """Memory of the model's device that is free once the model is loaded."""
    unloaded = max(model.model_size() - model.loaded_size(), 0)
    return cast(float, comfy.model_management.get_free_memory(model.load_device)) - unloaded
