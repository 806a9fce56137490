"""Broken faces of held-out people, ways to restore many of them at once, and the measures of a restored face.

The autoencoder alone breaks the faces, so that the true picture is known. Everything runs through the pack's own
functions. Fresh noise and inpainting, which Restore Faces does not offer, are put together from its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import comfy.sample
import cv2
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..fpga_core.evaluation.table import FACESIM
from ..fpga_core.faces.face import Face, PictureFaces
from ..fpga_core.identity.cast import Cast, CastMember
from ..fpga_core.patching.conditioning import Conditioning
from ..fpga_core.patching.restoration.controls import RepControlNetFaces
from ..fpga_core.patching.restoration.identities import CastRecognition, FaceIdentities
from ..fpga_core.patching.restoration.restorer import FaceRestorer
from ..fpga_core.patching.restoration.samplers import RestorationSampler
from ..fpga_core.patching.restoration.sampling import invert_latent, restore_latent
from ..fpga_core.restoration.face_crops import FaceCrop, crop_faces
from ..fpga_core.restoration.matching import Match, MatchBy
from ..fpga_core.restoration.paste import paste_faces
from ..fpga_core.restoration.settings import CropSettings, InversionSettings, RestoreSettings
from .gallery import SIZE_PX
from .generation_lab import shipped_way
from .laboratory import CFG, FULL, NEGATIVE, Case, Laboratory, enlarge
from .painter import paint
from .scenes import Scene
from .tables import POSE_ERROR

CROP = CropSettings(size_px=SIZE_PX, size_limit_px=0)
BATCH = 16
"""The number of pictures whose faces are restored together."""
BESIDE_PX = 7
"""Colours on both sides of a mask's border are read at this distance from it, which is beyond its soft edge."""
PATCH_PX = 5
"""Each colour is the mean over a square of this size."""
BORDER, BACKGROUND, DRIFT = "colour at the border", "background", "drift of the crop"


@dataclass(frozen=True, eq=False)
class Broken:
    """One picture whose face is broken.

    Attributes:
        case: what it shows.
        true, picture: (1, height, width, 3), painted at full size, and encoded and decoded at a quarter of that size.
        face: the exact face.
    """

    case: Case
    true: Tensor
    picture: Tensor
    face: Face

    @cached_property
    def border(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels inside and outside the border of the mask that is pasted by default, (num, 2) x and y each."""
        crops = crop_faces(self.picture, [PictureFaces(FULL, (self.face,))], CROP)
        _, (mask,) = paste_faces(self.picture, crops)
        inside = (mask.numpy() >= 0.5).astype(np.uint8)
        away = [cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for part in (1 - inside, inside)]
        distance = cv2.GaussianBlur(away[0] - away[1], (0, 0), 1)
        across = np.stack(np.gradient(distance)[::-1], -1)
        (outline, *_), _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = outline[:, 0]
        steps = across[points[:, 1], points[:, 0]]
        steps = BESIDE_PX * steps / np.linalg.norm(steps, axis=1, keepdims=True).clip(1e-6)
        limit = np.array(inside.shape[::-1]) - 1
        inner, outer = (np.clip((points + side * steps).round().astype(int), 0, limit) for side in (-1, 1))
        return inner, outer

    def colour_steps(self, picture: Tensor) -> np.ndarray:
        """Returns how the colours of a picture change across the border, (num, 3) in [0, 1]."""
        smooth = cv2.blur(picture[0].numpy(), (PATCH_PX, PATCH_PX))
        inner, outer = (smooth[points[:, 1], points[:, 0]] for points in self.border)
        return inner - outer


@dataclass(frozen=True, eq=False)
class Restored:
    """A picture after a restoration.

    Attributes:
        image: (1, height, width, 3).
        changed: the mask of what was pasted, (height, width).
        drift: mean change in the outer eighth of the crop before it is pasted, which pasting has to hide.
    """

    image: Tensor
    changed: Tensor
    drift: float = 0.0


def prompt_of_picture(scene: Scene) -> str:
    return scene.caption


def prompt_of_crop(scene: Scene) -> str:
    """Returns the caption of the picture, which calls the crop a close-up."""
    return scene.caption.replace(scene.shot.value, "close-up")


def general_prompt(scene: Scene) -> str:  # noqa: ARG001
    return "close-up of a person"


FoundFaces = tuple[PictureFaces, tuple[Match | None, ...]]
"""The faces of a picture, and which of them show the person."""


def exactly(lab: Laboratory, one: Broken) -> FoundFaces:  # noqa: ARG001
    return PictureFaces(FULL, (one.face,)), (Match(0, "known"),)


def by_detector(lab: Laboratory, one: Broken) -> FoundFaces:
    """Returns what the detector finds in the broken picture, matched as Restore Faces does by default."""
    found, person = lab.find_faces(one.picture), CastMember(one.case.cast.members[0].identity)
    return found, CastRecognition(Cast((person,), FULL), lab.analysis).match(found, MatchBy.AUTO)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How faces are restored.

    Attributes:
        settings: as of Restore Faces.
        prompt: the prompt of a crop.
        find: finds the faces.
        has_control: whether landmarks steer the restoration.
    """

    settings: RestoreSettings = RestoreSettings(
        steps=12, cfg=CFG, crop=CROP, inversion=InversionSettings(repetitions=0)
    )
    prompt: Callable[[Scene], str] = prompt_of_picture
    find: Callable[[Laboratory, Broken], FoundFaces] = exactly
    has_control: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Faces that are restored together.

    Attributes:
        pictures: the broken pictures.
        plan: how they are restored.
        crops: their faces.
        restorer: restores them.
    """

    pictures: Sequence[Broken]
    plan: Plan
    crops: tuple[FaceCrop, ...]
    restorer: FaceRestorer = field(repr=False)

    @property
    def images(self) -> Tensor:
        return torch.cat([one.picture for one in self.pictures])

    def latents(self) -> Tensor:
        return self.restorer.vae.encode(torch.stack([face.crop for face in self.crops]))

    def masks(self) -> Tensor:
        """Returns the areas that are regenerated, (num_faces, size, size)."""
        return torch.stack([face.fusion_mask for face in self.crops])

    def attached(self) -> tuple[ModelPatcher, Conditioning, Conditioning]:
        """Returns model and prompts with landmarks and identities, as in Restore Faces, for other samplers."""
        restorer = self.restorer
        assert restorer.adapter is not None and restorer.cast is not None and restorer.control is not None
        identities = FaceIdentities.encode(restorer.adapter, restorer.cast)
        acting = identities.in_crops(self.crops, restorer.settings.identity_strength)
        conditions = identities.condition(restorer.positive, restorer.negative, acting)
        model = identities.attach(restorer.control.attach(restorer.model))
        hints = torch.stack([face.hint for face in self.crops if face.hint is not None])
        return model, *restorer.control.condition(*conditions, hints)

    def pasted(self, crops: Tensor) -> list[Restored]:
        """Pastes restored crops, (num_faces, size, size, 3), into the pictures."""
        faces = [replace(face, crop=crop) for face, crop in zip(self.crops, crops, strict=True)]
        matched = self.restorer.settings.are_colors_matched
        images, changed = paste_faces(self.images, faces, are_colors_matched=matched)
        drifts = [0.0] * len(self.pictures)
        for before, after in zip(self.crops, faces, strict=True):
            drifts[before.picture_index] = border_difference((after.crop - before.crop).abs())
        return [Restored(images[[n]], changed[n], drifts[n]) for n in range(len(self.pictures))]


class RestorationLab:
    """Broken pictures, ways to restore them, and measures."""

    def __init__(self) -> None:
        self.lab = Laboratory()
        way = shipped_way()
        assert way.branch is not None and way.adapter is not None
        self.branch, self.adapter = way.branch, way.adapter

    def broken(self, case: Case) -> Broken:
        decoded = self.lab.through_autoencoder(case.painted())
        true = torch.from_numpy(paint(case.scene, FULL.width)).float()[None] / 255
        return Broken(case, true, enlarge(decoded), case.faces.faces[0])

    def batches(self, pictures: Sequence[Broken], plan: Plan) -> Iterator[Batch]:
        """Crops the faces of pictures, and says who they are; one prompt for each face."""
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            faces, found = zip(*(plan.find(self.lab, one) for one in part), strict=True)
            matches = [[match and replace(match, member=number) for match in one] for number, one in enumerate(found)]
            settings = plan.settings.effective
            style = settings.hint_style if plan.has_control else None
            images = torch.cat([one.picture for one in part])
            crops = crop_faces(images, faces, settings.crop, matches=matches, hint_style=style)
            crops = tuple(face for face in crops if face.match)
            prompts = [plan.prompt(part[face.picture_index].case.scene) for face in crops]
            yield Batch(
                pictures=part,
                plan=plan,
                crops=crops,
                restorer=FaceRestorer(
                    model=self.lab.model,
                    vae=self.lab.vae,
                    positive=self.stacked(prompts),
                    negative=self.lab.encode(NEGATIVE),
                    settings=settings,
                    cast=Cast(tuple(one.case.cast.members[0] for one in part), FULL),
                    adapter=self.adapter,
                    control=RepControlNetFaces(self.branch) if plan.has_control else None,
                ),
            )

    def stacked(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes one prompt for each picture of a batch, as one conditioning."""
        encoded = [self.lab.encode(prompt)[0] for prompt in prompts or [NEGATIVE]]
        text = torch.cat([text for text, _ in encoded])
        pooled = torch.cat([options["pooled_output"] for _, options in encoded])
        return [[text, {**encoded[0][1], "pooled_output": pooled}]]

    def restore(self, pictures: Sequence[Broken], plan: Plan) -> list[Restored]:
        """Restores pictures with DIIR, as Restore Faces does."""
        restored: list[Restored] = []
        for batch in self.batches(pictures, plan):
            restorer, _ = batch.restorer.decided()
            after = [face.crop for face in restorer.restore(batch.crops)]
            restored += batch.pasted(torch.stack(after) if after else torch.empty(0))
        return restored

    def restore_from_noise(self, pictures: Sequence[Broken], plan: Plan, strength: float = 1.0) -> list[Restored]:
        """Restores pictures with the same fusion, from other noise.

        Args:
            strength: from 0, the inverted noise, to 1, fresh noise alone.
        """
        restored: list[Restored] = []
        for batch in self.batches(pictures, plan):
            model, positive, negative = batch.attached()
            _, inversion = invert_latent(
                model,
                batch.restorer.positive,
                batch.latents(),
                sigmas=batch.restorer.sigmas,
                settings=plan.settings.inversion,
                mask=batch.masks(),
            )
            sampler = RestorationSampler(
                inversion=inversion,
                mask=batch.masks(),
                settings=plan.settings.fusion,
                noise_strength=strength,
                noise_seed=batch.pictures[0].case.number,
            )
            with inversion.cache:
                latents = restore_latent(model, positive, negative, cfg=plan.settings.cfg, sampler=sampler)
            restored += batch.pasted(self.decode(latents))
        return restored

    def inpaint(self, pictures: Sequence[Broken], plan: Plan, denoise: float) -> list[Restored]:
        """Repaints the same regions with img2img under a noise mask, as common face detailers do.

        Crops, masks, landmarks, prompts and the region of the identity are those of DIIR.
        """
        restored: list[Restored] = []
        for batch in self.batches(pictures, plan):
            model, positive, negative = batch.attached()
            latents, seed = batch.latents(), batch.pictures[0].case.number
            samples = comfy.sample.sample(
                model,
                comfy.sample.prepare_noise(latents, seed),
                steps=plan.settings.steps,
                cfg=plan.settings.cfg,
                sampler_name="ddim",
                scheduler=plan.settings.scheduler,
                positive=positive,
                negative=negative,
                latent_image=latents,
                denoise=denoise,
                noise_mask=batch.masks()[:, None],
                disable_pbar=True,
                seed=seed,
            )
            restored += batch.pasted(self.decode(samples))
        return restored

    def paste_truth(self, pictures: Sequence[Broken], plan: Plan) -> list[Restored]:
        """Pastes the true picture's crops after encoding and decoding them: the ceiling of every restoration."""
        restored: list[Restored] = []
        for batch in self.batches(pictures, plan):
            true = crop_faces(
                torch.cat([one.true for one in batch.pictures]),
                [PictureFaces(FULL, (one.face,)) for one in batch.pictures],
                plan.settings.crop,
            )
            latents = self.lab.vae.encode(torch.stack([face.crop for face in true]))
            restored += batch.pasted(self.decode(latents))
        return restored

    def decode(self, latents: Tensor) -> Tensor:
        return self.lab.vae.decode(latents)[..., :3].float().cpu().clamp(0, 1).contiguous()

    def measure(self, one: Broken, picture: Tensor) -> dict[str, float]:
        """Measures likeness and pose, and how the colours at the border of the mask differ from the true picture's."""
        found = self.lab.find_faces(picture)
        near = [face for face in found.faces if face.box.iou(one.face.box) > 0.1]
        figures = self.lab.likenesses(one.case, PictureFaces(FULL, tuple(near)))
        return {
            FACESIM: figures[FACESIM],
            POSE_ERROR: self.lab.pose_error(one.case, found),
            BORDER: float(np.abs(one.colour_steps(picture) - one.colour_steps(one.true)).mean()),
        }

    def measure_restored(self, one: Broken, restored: Restored) -> dict[str, float]:
        """Measures a restored picture; the background is the largest change outside the mask that was pasted."""
        outside = (restored.image - one.picture).abs()[0][restored.changed == 0]
        background = float(outside.max()) if outside.numel() else 0.0
        return {**self.measure(one, restored.image), BACKGROUND: background, DRIFT: restored.drift}


def face_of(one: Broken, picture: Tensor) -> Tensor:
    """Returns the face and its surroundings in a picture, (1, side, side, 3)."""
    x, y = one.face.box.center
    side = int(1.8 * one.face.size_px)
    left, top = (min(max(int(middle - side / 2), 0), FULL.width - side) for middle in (x, y))
    return picture[:, top : top + side, left : left + side]


def border_difference(difference: Tensor) -> float:
    """Returns the mean absolute difference in the outer eighth of a crop before pasting: the background's change."""
    side = difference.shape[0]
    edge = side // 8
    outer = torch.ones(side, side, dtype=torch.bool)
    outer[edge:-edge, edge:-edge] = False
    return float(difference[outer].mean())
