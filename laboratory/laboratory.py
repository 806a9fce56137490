"""The basis of all tables of the laboratory: held-out people, ways to generate pictures of them, and the measures.

Everything runs through the functions that the pack's nodes call. Each person's identity comes from another picture of
them, never from the renderer's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import comfy.sample
import comfy.sd
import numpy as np
import torch
from comfy.controlnet import ControlBase
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..devtools.sheet import Cell, sheet
from ..fpga_core.evaluation.bleed import bleed
from ..fpga_core.evaluation.facesim import score_cast
from ..fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from ..fpga_core.faces.face import PictureFaces
from ..fpga_core.faces.insightface_pack import load_insightface_pack
from ..fpga_core.identity.adapters import IdentityAdapter
from ..fpga_core.identity.cast import Cast, CastMember
from ..fpga_core.identity.identity import Identity
from ..fpga_core.identity.regions import Region
from ..fpga_core.patching.cast.apply import apply_cast
from ..fpga_core.patching.cast.controlnet import apply_cast_controlnet
from ..fpga_core.patching.repcontrolnet.apply import add_hint
from ..fpga_core.patching.repcontrolnet.fold import fold_branch
from ..fpga_core.repcontrolnet.branch import RepControlNet
from ..fpga_core.shapes import Extent
from .anatomy import smile_of
from .gallery import HELD_OUT_SEED, SIZE_PX, scene_number
from .lessons import HEAD, WorldRecogniser
from .painter import paint, paint_mask
from .reader import PictureReader, answers
from .recogniser import portrait
from .scenes import Scene, Shot, expression_of
from .shipped import CHECKPOINT, FACE_PACK, READER, RECOGNISER, load_checkpoint

ENLARGED = 4
"""Pictures are enlarged by this factor before faces are detected and restored. A face of 22 pixels becomes one of 88.
"""
SMALL, FULL = Extent(SIZE_PX, SIZE_PX), Extent(SIZE_PX * ENLARGED, SIZE_PX * ENLARGED)
STEPS, CFG = 25, 2.5
NEGATIVE = ""
NUM_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Case:
    """One held-out scene.

    Attributes:
        number: number of the case, which seeds its noise.
        scene: what the picture must show.
        cast: its people in their places, with identities from other pictures of them.
    """

    number: int
    scene: Scene
    cast: Cast

    def condition(self, parts: DrawnParts = DrawnParts.FACE_AND_BODY) -> Tensor:
        """Draws the condition image, (1, SIZE_PX, SIZE_PX, 3)."""
        return draw_conditions([self.scene.faces(SMALL)], parts, FaceStyle.OPENPOSE)

    @property
    def faces(self) -> PictureFaces:
        """The exact boxes and landmarks in the enlarged picture."""
        return self.scene.faces(FULL)

    @property
    def everywhere(self) -> Cast:
        """The same people, each acting in the whole picture."""
        members = (CastMember(member.identity, None, member.face_box) for member in self.cast.members)
        return Cast(tuple(members), self.cast.extent)

    def painted(self) -> Tensor:
        """Returns the true picture, (1, SIZE_PX, SIZE_PX, 3)."""
        return torch.from_numpy(paint(self.scene, SIZE_PX)).float()[None] / 255


@dataclass(frozen=True, eq=False)
class Way:
    """One way to generate a picture.

    Attributes:
        branch: the RepControlNet that is folded into the model. None: the plain base.
        control_net: the paper's first form, with the adapter in its cross attention. None: no ControlNet.
        adapter: makes the people's tokens. None: the picture shows no particular people.
        has_masks: whether each person acts only in their own region.
        alpha, beta: the weights of Eq. 6.
        strength: strength of the condition image; 0 leaves it out.
        parts: what the condition image shows.
    """

    branch: RepControlNet | None = None
    control_net: ControlBase | None = None
    adapter: IdentityAdapter | None = None
    has_masks: bool = True
    alpha: float = 1.0
    beta: float = 1.0
    strength: float = 1.0
    parts: DrawnParts = DrawnParts.FACE_AND_BODY


class Laboratory:
    """The shipped models, and what they are measured with."""

    def __init__(self) -> None:
        self.model, self.clip, self.vae = load_checkpoint(CHECKPOINT)
        self.recogniser = WorldRecogniser(RECOGNISER)
        self.analysis = load_insightface_pack(FACE_PACK)
        self.reader = PictureReader(READER)

    def cases(self, shot: Shot, num: int) -> list[Case]:
        """Returns the first held-out scenes of a kind, which are always the same."""
        scenes = (scene_number(HELD_OUT_SEED + number) for number in range(1_000_000))
        chosen = (scene for scene in scenes if scene.shot is shot)
        return [self.case(number, scene) for number, scene in enumerate(islice(chosen, num))]

    def case(self, number: int, scene: Scene) -> Case:
        exact = scene.faces(SMALL)
        members = []
        for place, (actor, face) in enumerate(zip(scene.actors, exact.faces, strict=True)):
            other = portrait(actor.person, np.random.default_rng((10, number, place)))
            embedding = torch.from_numpy(self.recogniser.embed(other[None]))
            identity = Identity(f"person {place + 1}", {self.recogniser.hash: embedding}, {}, {}, "mean")
            region = Region.from_mask(torch.from_numpy(paint_mask(actor, SIZE_PX, HEAD)) / 255)
            members.append(CastMember(identity, region, face.box.normalised(SMALL)))
        return Case(number, scene, Cast(tuple(members), SMALL))

    def through_autoencoder(self, picture: Tensor) -> Tensor:
        """Encodes and decodes a picture, (1, height, width, 3). No UNet can do better than the result."""
        return self.vae.decode(self.vae.encode(picture)).detach().float().cpu().clamp(0, 1)

    def encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def generate(self, way: Way, cases: Sequence[Case], seed: int = 0) -> Iterator[Tensor]:
        """Generates pictures of the cases, (1, SIZE_PX, SIZE_PX, 3) each. The noise is the same for every way."""
        model = self.folded(way)
        for case in cases:
            yield self.sample(*self.conditioned(way, case, model), seed=seed * 100_000 + case.number)

    def folded(self, way: Way) -> ModelPatcher:
        """Returns the base with the branch of a way, if it has one."""
        if way.branch is None:
            return self.model
        return fold_branch(self.model, way.branch, alpha=way.alpha, beta=way.beta)

    def conditioned(self, way: Way, case: Case, model: ModelPatcher) -> tuple[ModelPatcher, list, list]:
        """Returns a folded model and the prompts of a case, with its condition image and people."""
        positive, negative = self.encode(case.scene.caption), self.encode(NEGATIVE)
        cast = case.cast if way.has_masks else case.everywhere
        if way.control_net is not None:
            assert way.adapter is not None
            return model, *apply_cast_controlnet(
                positive,
                negative,
                way.control_net,
                adapter=way.adapter,
                cast=cast,
                image=case.condition(way.parts),
                strength=way.strength,
            )
        if way.branch is not None:
            hint = case.condition(way.parts)
            positive, negative = add_hint(positive, negative, branch=way.branch, image=hint, strength=way.strength)
        if way.adapter is not None:
            model, positive, negative = apply_cast(model, positive, negative, adapter=way.adapter, cast=cast)
        return model, positive, negative

    def sample(self, model: ModelPatcher, positive: list, negative: list, seed: int, cfg: float = CFG) -> Tensor:
        """Samples and decodes a picture as KSampler and VAE Decode do."""
        latent = torch.zeros(1, 4, SIZE_PX // 8, SIZE_PX // 8)
        noise = comfy.sample.prepare_noise(latent, seed)
        samples = comfy.sample.sample(
            model, noise, STEPS, cfg, "ddim", "normal", positive, negative, latent, disable_pbar=True, seed=seed
        )
        return self.vae.decode(samples).detach().float().cpu().clamp(0, 1)

    def find_faces(self, picture: Tensor) -> PictureFaces:
        """Returns the faces of an enlarged picture, (1, height, width, 3), with embeddings."""
        return PictureFaces(FULL, self.analysis.find_faces([as_bytes(picture)])[0])

    def likenesses(self, case: Case, found: PictureFaces) -> dict[str, float]:
        """Returns FaceSim and related measures.

        For one person, FaceSim is the largest cosine of any face, and FaceSim by the paper's IoU rule is given beside
        it. For several people, bleed is the mean cosine of each face with the *other* people.
        """
        portraits = case.cast.portraits(self.recogniser.hash)
        score = score_cast(portraits, [found], recogniser=self.recogniser.hash, canvas=SMALL)
        figures = {"FaceSim": score.facesim}
        if len(portraits) == 1:
            anywhere = max(
                (cosine(portraits[0].embedding, face, self.recogniser.hash) for face in found.faces), default=0.0
            )
            return {"FaceSim": anywhere, "FaceSim by the IoU rule": score.facesim}
        away = bleed(score.pictures[0], portraits, picture=found, recogniser=self.recogniser.hash)
        return {**figures, "bleed": away}

    def pose_error(self, case: Case, found: PictureFaces) -> float:
        """Returns the mean distance between wanted and found landmarks, as a fraction of the face's size.

        The distance of each face is at most 1. It is 1 for a face that is not found.
        """
        errors = []
        for face in case.faces.faces:
            near = [other for other in found.faces if other.box.iou(face.box) > 0.1]
            away = [np.linalg.norm(other.landmarks - face.landmarks, axis=1).mean() / face.size_px for other in near]
            errors.append(min([*away, 1.0]))
        return float(np.mean(errors))

    def measure(self, case: Case, picture: Tensor) -> dict[str, float]:
        """Returns all measures of a generated picture of any size, with caption accuracy if it shows one person."""
        enlarged = enlarge(picture)
        found = self.find_faces(enlarged)
        figures = {**self.likenesses(case, found), "pose error": self.pose_error(case, found)}
        if len(case.scene.actors) == 1:
            small = interpolate(picture.movedim(-1, 1), size=(SIZE_PX, SIZE_PX), mode="area").movedim(1, -1)
            _, (told,) = self.reader.read(as_bytes(small)[None])
            near = [face for face in found.faces if face.box.iou(case.faces.faces[0].box) > 0.1]
            expression = expression_of(smile_of(near[0].landmarks)) if near else "none, for there is no face"
            said = (*answers(case.scene), case.scene.actors[0].expression)
            figures["caption accuracy"] = float(
                np.mean([a == b for a, b in zip(said, (*told, expression), strict=True)])
            )
        return figures


def cosine(embedding: np.ndarray, face, recogniser: str) -> float:  # noqa: ANN001
    other = face.embeddings[recogniser]
    return float(embedding.ravel() @ other / np.linalg.norm(embedding) / np.linalg.norm(other))


def as_bytes(picture: Tensor) -> np.ndarray:
    """Converts (1, height, width, 3) in [0, 1] to (height, width, 3) uint8."""
    return (picture[0].clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def enlarge(picture: Tensor) -> Tensor:
    """Enlarges a picture to the size of FULL. A picture of that size stays as it is."""
    if picture.shape[1] == FULL.height:
        return picture
    size = (FULL.height, FULL.width)
    return interpolate(picture.movedim(-1, 1), size=size, mode="bicubic").movedim(1, -1).clamp(0, 1)


def save_pictures(file: Path, rows: Mapping[str, Sequence[Tensor]]) -> None:
    """Saves a sheet with the first pictures of each row of a table."""
    cells = {
        name: [Cell("", Image.fromarray(as_bytes(picture))) for picture in pictures[:NUM_SHOWN]]
        for name, pictures in rows.items()
    }
    file.parent.mkdir(exist_ok=True)
    sheet(cells).reduce(2).save(file, quality=88)
    print(f"pictures: {file}", flush=True)
