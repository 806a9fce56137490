"""Inverts and restores cropped faces, many at once, each with its own identity and landmarks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...faces.face import FaceAnalyzer
from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast
from ...progress import say
from ...restoration.face_crops import FaceCrop
from ...restoration.feature_cache import MIB, CacheMode, CachePlan, fitting_mode
from ...restoration.report import RestoredFace
from ...restoration.settings import PAPER_REMARK, IdentityIn, InvertWith, Preset, RestoreSettings
from ...shapes import Extent
from ..cast.backends import connected_backends
from ..conditioning import Conditioning, for_crops, without_words
from ..families import latent_shape
from .autoencoder import PictureVAE
from .checks import family_of
from .controls import ControlNetFaces, FaceControl
from .identities import ActingFaces, CastRecognition
from .people import FacePeople, KnownPeople
from .samplers import Inversion, RestorationSampler
from .sampling import Callback, record_inversion, restore_latent

logger = logging.getLogger(__name__)

MEMORY_MARGIN = 1.5
"""The host's own factor between the estimated memory of a model call and the memory that must be free."""

MakeCallback = Callable[[ModelPatcher, int], Callback]
"""Makes the host's progress callback for a model and a number of steps."""


@dataclass(frozen=True)
class Rung:
    """What changes from try to try. The inversion is deterministic, so repeating it would change nothing."""

    identity_factor: float
    style_factor: float
    noise_strength: float


LADDER = (
    Rung(1.0, 1.0, 0.0),
    Rung(1.25, 1.0, 0.0),
    Rung(1.5, 0.5, 0.0),
    *(Rung(1.5, 0.5, 0.2 * more) for more in range(1, 5)),
)
"""Every try: the first one, a stronger identity, then a weaker style too, then more and more fresh noise."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceRestorer:
    """Everything that is needed to restore faces.

    Attributes:
        model: a plain model of a family that can restore.
        vae: its autoencoder.
        positive, negative: prompts of the picture; parts that are tied to places in it are left out.
        face_prompt: what a crop of a face shows, in the place of the picture's positive; None = that.
        settings: how faces are restored.
        cast: the people whose faces they can be; None restores faces from the prompt alone.
        adapter: makes the tokens of people whose photos were encoded; only possible if the family takes adapters.
        clip: the model's text encoder, which says people's descriptions; with None, they are not said.
        face_analysis: measures FaceSim; with None, it is not measured.
        control: keeps each face's pose and expression by its landmarks; with None, only the inversion keeps them.
        make_callback: makes the callback for progress and previews.
        known: by what the model knows the people, once they have `met`; None without a cast.
        people: those in the model, from `with_people`.
    """

    model: ModelPatcher
    vae: VAE
    positive: Conditioning
    negative: Conditioning
    settings: RestoreSettings
    cast: Cast | None = None
    adapter: IdentityAdapter | None = None
    clip: CLIP | None = None
    face_analysis: FaceAnalyzer | None = None
    control: FaceControl | None = None
    face_prompt: Conditioning | None = None
    make_callback: MakeCallback | None = None
    known: KnownPeople | None = None
    people: tuple[FacePeople, ...] = ()

    def met(self) -> FaceRestorer:
        """Returns this restorer with the ways in which its model gets to know its people."""
        if self.cast is None or self.known is not None:
            return self
        backends = connected_backends(self.adapter, self.vae, self.clip)
        return replace(self, known=KnownPeople.of(self.model, self.cast, backends))

    @property
    def recognition(self) -> CastRecognition | None:
        """The recognition of faces; None without a cast."""
        return None if self.cast is None else CastRecognition(self.cast, self.face_analysis)

    @property
    def sigmas(self) -> Tensor:
        """Returns the noise levels of the steps; some schedulers add one step to the requested number."""
        sampling = self.model.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, self.settings.scheduler, self.settings.steps)

    def restore(self, faces: Sequence[FaceCrop]) -> list[RestoredFace]:
        """Restores faces in batches that fit into memory: together, whoever can be told to one patched model together.

        Args:
            faces: each has a hint if there is a control, and a match if there is a cast.
        """
        if not faces:
            return []
        attached, known = self._attached(), self.met().known
        latents = PictureVAE(self.vae).encode(torch.stack([face.crop for face in faces]))
        groups = [((), [*range(len(faces))])] if known is None else known.groups(self.model, faces, self.settings)
        restored: dict[int, RestoredFace] = {}
        for people, numbers in groups:
            told = attached.with_people(people)
            for part in told.batches(latents[numbers]):
                chosen, which = numbers[part], _which(len(restored), len(numbers[part]), len(faces))
                batch = FaceBatch(told, [faces[number] for number in chosen], which)
                restored.update(zip(chosen, batch.restore(latents[chosen]), strict=True))
        return [restored[number] for number in range(len(faces))]

    def _attached(self) -> FaceRestorer:
        """Returns this restorer with its control in the model, and with prompts for crops."""
        control = self.control
        model = self.model if control is None else control.attach(self.model)
        if self.adapter is not None and self.settings.identity_in is not IdentityIn.UNET:
            control = control.for_identities(self.adapter) if isinstance(control, ControlNetFaces) else control
        shown = self.positive if self.face_prompt is None else self.face_prompt
        prompts = {"positive": for_crops(shown), "negative": for_crops(self.negative)}
        return replace(self, model=model, control=control, **prompts)

    def with_people(self, people: tuple[FacePeople, ...]) -> FaceRestorer:
        """Returns this restorer with people in its model, for their faces."""
        model = self.model
        for known in people:
            model = known.attach(model)
        return replace(self, model=model, people=people)

    def _full_plan(self, latent: Extent) -> CachePlan:
        """What whole maps of one face would take."""
        return CachePlan.of(
            CacheMode.FULL,
            family_of(self.model).layers(self.model, latent),
            settings=self.settings.fusion,
            num_steps=len(self.sigmas) - 1,
            latent_shape=latent_shape(self.model, 1, latent),
            sources=self.settings.fusion.sources,
        )

    def decided(self) -> tuple[FaceRestorer, tuple[str, ...]]:
        """Returns this restorer with its preset and its cache mode carried out, and what to tell the user about it."""
        settings = self.settings.effective
        remarks = [PAPER_REMARK] if self.settings.preset is Preset.AS_IN_THE_PAPER else []
        family = family_of(self.model)
        decided, wanted = replace(self.met(), settings=settings), settings.inversion
        if decided.known is not None and not any(decided.known.by):
            remarks.append(
                f"identities: none acts, because there are no identity adapters for {family.name}; faces follow the "
                "prompt and the ControlNet"
            )
        elif decided.known is not None:
            remarks += decided.known.remarks
        if family.embeds_guidance(self.model) and settings.cfg != 1:
            logger.warning("set cfg to 1: this model's guidance is an input of it (Flux Guidance), and cfg adds to it")
        if wanted.mode is CacheMode.AUTO:
            side = settings.crop.size_px // self.model.model.latent_format.spacial_downscale_ratio
            full = decided._full_plan(Extent(side, side))
            mode = fitting_mode(wanted.mode, full, wanted.budget_mib)
            decided = replace(decided, settings=replace(settings, inversion=replace(wanted, mode=mode)))
            if mode is CacheMode.STATISTICS:
                remarks.append(
                    f"cache_mode auto: statistics, because complete maps need {full.num_mib:,} MiB a face and "
                    f"cache_budget_mib is {wanted.budget_mib:,}"
                )
        return decided, tuple(remarks)

    def batches(self, latents: Tensor) -> Iterator[slice]:
        """Splits faces into batches as large as memory and the cache's budget allow, with at least one face.

        The host separates cond and uncond if memory is short, but it never splits a batch of latents.
        """
        one, settings = (1, *latents.shape[1:]), self.settings.inversion
        latent = Extent(width=latents.shape[-1], height=latents.shape[-2])
        full = self._full_plan(latent)
        plan = replace(full, mode=fitting_mode(settings.mode, full, settings.budget_mib))
        control = self.control
        free, per_face = free_bytes(self.model), call_bytes(self.model, one)
        if control is not None:
            free, per_face = free - control.unloaded_bytes(), per_face * (1 + control.activation_share)
        per_face *= 1 + sum(people.share(latent) for people in self.people)
        by_memory = int(max(free, 0) // per_face)
        by_budget = settings.budget_mib * MIB // plan.num_bytes
        size = max(min(by_memory, by_budget), 1)
        for start in range(0, len(latents), size):
            yield slice(start, start + size)


def _which(num_done: int, num: int, num_faces: int) -> str:
    """Names a batch of faces for people, who count from 1."""
    first, last = num_done + 1, num_done + num
    return f"face {first} of {num_faces}" if first == last else f"faces {first} to {last} of {num_faces}"


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """A batch of faces that go through the model together.

    Attributes:
        run: the restorer, attached to the model, with the people of the faces.
        faces: the batch.
        which: which faces they are, for people.
    """

    run: FaceRestorer
    faces: Sequence[FaceCrop]
    which: str

    def restore(self, latents: Tensor) -> list[RestoredFace]:
        """Inverts the faces once, restores them, and restores the weak ones again. The cache is freed at the end."""
        settings, everyone = self.run.settings, range(len(self.faces))
        before = self._facesim(torch.stack([face.crop for face in self.faces]), self.faces)
        inversion = self._invert(latents)
        residuals = inversion.residuals.max(dim=0).values.tolist()
        with inversion.cache:
            say(f"{self.which}: restoration")
            crops, after = self._try(inversion, self.faces, rung=LADDER[0], seed=settings.seed)
            best = [
                RestoredFace(crop=crops[n], before=before[n], after=after[n], num_tries=1, residual=residuals[n])
                for n in everyone
            ]
            for retry in range(1, settings.max_retries + 1):
                weak = [n for n in everyone if best[n].is_below(settings.retry_below)]
                if not weak:
                    break
                faces, seed = [self.faces[n] for n in weak], (settings.seed + retry) % 2**64
                rung = LADDER[min(retry, len(LADDER) - 1)]
                say(f"{self.which}: {len(weak)} restored again, attempt {retry} of {settings.max_retries}")
                crops, after = self._try(inversion.of_items(weak), faces, rung=rung, seed=seed)
                for n, crop, facesim in zip(weak, crops, after, strict=True):
                    tried = replace(best[n], num_tries=retry + 1)
                    is_better = facesim is not None and tried.is_below(facesim)
                    best[n] = replace(tried, crop=crop, after=facesim) if is_better else tried
        return best

    def _invert(self, latents: Tensor) -> Inversion:
        """Tells the model what the settings say; the weights stay those of the restoration: line 2 of Alg. 1."""
        say(f"{self.which}: inversion")
        run, model, told = self.run, self.run.model, self.run.settings.inversion.invert_with
        positive = without_words(run.positive) if told is InvertWith.NOTHING else run.positive
        if told is InvertWith.PROMPT_AND_LANDMARKS:
            model, positive, _ = self._told(self.faces, strength=0)
        if told is InvertWith.EVERYTHING:
            model, positive, _ = self._told(self.faces, run.settings.identity_strength)
        spare = free_bytes(model) - len(latents) * call_bytes(model, latents.shape)
        spare -= comfy.model_management.minimum_inference_memory()
        _, inversion = record_inversion(
            model,
            positive,
            latents,
            sigmas=run.sigmas,
            settings=run.settings.inversion,
            fusion=run.settings.fusion,
            sources=run.settings.fusion.sources,
            mask=torch.stack([face.fusion_mask for face in self.faces]),
            device_bytes=max(int(spare), 0),
            callback=self._callback(),
        )
        return inversion

    def _try(
        self, inversion: Inversion, faces: Sequence[FaceCrop], *, rung: Rung, seed: int
    ) -> tuple[Tensor, list[float | None]]:
        """Restores some faces of the batch, and returns the crops and their FaceSims."""
        run, settings = self.run, self.run.settings
        model, positive, negative = self._told(faces, settings.identity_strength * rung.identity_factor)
        sampler = RestorationSampler(
            inversion=inversion,
            mask=torch.stack([face.fusion_mask for face in faces]),
            settings=replace(settings.fusion, style_strength=settings.fusion.style_strength * rung.style_factor),
            noise_strength=rung.noise_strength,
            noise_seed=seed,
        )
        latents = restore_latent(
            model, positive, negative, cfg=settings.cfg, sampler=sampler, callback=self._callback()
        )
        crops = PictureVAE(run.vae).decode(latents)[..., :3].float().cpu().clamp(0, 1).contiguous()
        return crops, self._facesim(crops, faces)

    def _told(self, faces: Sequence[FaceCrop], strength: float) -> tuple[ModelPatcher, Conditioning, Conditioning]:
        """Returns model and prompts with the landmarks of some faces of the batch, and identities at a strength."""
        run = self.run
        told = run.model, run.positive, run.negative
        inside: ActingFaces | None = None
        for people in run.people if strength != 0 else ():
            told, acting = people.tell(told, faces, strength), people.in_control(faces, strength)
            inside = inside or acting
        if run.control is None:
            return told
        model, positive, negative = told
        hints = torch.stack([face.hint for face in faces if face.hint is not None])
        positive, negative = run.control.condition(positive, negative, hints, acting=inside)
        return run.control.follow(model, hints), positive, negative

    def _facesim(self, crops: Tensor, faces: Sequence[FaceCrop]) -> list[float | None]:
        recognition = self.run.recognition
        return [None] * len(faces) if recognition is None else recognition.facesim(crops, faces)

    def _callback(self) -> Callback | None:
        make = self.run.make_callback
        return None if make is None else make(self.run.model, len(self.run.sigmas) - 1)


def call_bytes(model: ModelPatcher, latent_shape: Sequence[int]) -> float:
    """Returns the memory of a model call with cond and uncond of one latent, by the host's estimate and margin."""
    return model.model.memory_required([2, *latent_shape[1:]]) * MEMORY_MARGIN


def free_bytes(model: ModelPatcher) -> float:
    """Returns the memory of the model's device that is free after the model is loaded."""
    unloaded = max(model.model_size() - model.loaded_size(), 0)
    return cast(float, comfy.model_management.get_free_memory(model.load_device)) - unloaded
