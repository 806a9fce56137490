"""`dev.py world evaluate restoration`: DIIR on held-out full-body pictures whose faces the autoencoder broke.

The paper's Table 4 and Fig. 8, and the comparison that the defaults of Restore Faces come from. Everything runs through
the functions of the pack's nodes; identities come from another picture of each person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...fpga_core.checkpoints import read_safetensors
from ...fpga_core.faces.alignment import align_face
from ...fpga_core.faces.face import Face, PictureFaces
from ...fpga_core.faces.insightface_pack import InsightFacePack, load_insightface_pack
from ...fpga_core.faces.likeness import cosine_similarities
from ...fpga_core.identity.adapter_layouts import read_identity_adapter
from ...fpga_core.identity.cast import Cast, CastMember
from ...fpga_core.identity.identity import Identity
from ...fpga_core.patching.face_conditioning import RepControlNetFaces
from ...fpga_core.patching.face_run import RestoreSettings
from ...fpga_core.patching.restore_faces import RestoredPictures, restore_faces
from ...fpga_core.repcontrolnet.layouts import read_repcontrolnet
from ...fpga_core.restoration.cache_plan import CacheMode
from ...fpga_core.restoration.face_crops import CropSettings
from ...fpga_core.restoration.fusion import FusionSettings, StyleSource
from ...fpga_core.restoration.matching import MatchBy
from ...fpga_core.shapes import Extent
from .gallery import HELD_OUT_SEED, SIZE_PX, scene_number
from .lessons import WorldRecogniser
from .painter import paint
from .recogniser import portrait
from .scenes import Scene, Shot
from .shipped import BRANCH, CHECKPOINT, FACE_PACK, IDENTITY_ADAPTER, RECOGNISER, load_checkpoint

ENLARGED = 4
"""Pictures are enlarged before their faces are restored: a face of 22 pixels becomes one of 88."""
FULL = Extent(SIZE_PX * ENLARGED, SIZE_PX * ENLARGED)
CFG = 2.5


@dataclass(frozen=True, eq=False)
class Case:
    """One held-out picture.

    Attributes:
        scene: what it shows; one person.
        true, broken: (1, height, width, 3), as painted at full size, and through the autoencoder at a quarter of it.
        identity: of the person, from another picture.
        face: where it is, exactly.
    """

    scene: Scene
    true: Tensor
    broken: Tensor
    identity: Identity
    face: Face


class RestorationLab:
    """Cases, models and measures."""

    def __init__(self, num_cases: int) -> None:
        self.model, self.clip, self.vae = load_checkpoint(CHECKPOINT)
        self.recogniser = WorldRecogniser(RECOGNISER)
        self.analysis: InsightFacePack = load_insightface_pack(FACE_PACK)
        self.branch = read_repcontrolnet(*read_safetensors(BRANCH), name=BRANCH.name)
        self.adapter = read_identity_adapter(*read_safetensors(IDENTITY_ADAPTER), name=IDENTITY_ADAPTER.name)
        numbers = (HELD_OUT_SEED + number for number in range(100_000))
        scenes = (scene for scene in map(scene_number, numbers) if scene.shot is Shot.FULL)
        self.cases = [self.case(number, scene) for number, scene in zip(range(num_cases), scenes, strict=False)]

    def case(self, number: int, scene: Scene) -> Case:
        small = torch.from_numpy(paint(scene, SIZE_PX)).float()[None] / 255
        broken = self.vae.decode(self.vae.encode(small)).clamp(0, 1)
        enlarged = interpolate(broken.movedim(-1, 1), scale_factor=ENLARGED, mode="bicubic").movedim(1, -1).clamp(0, 1)
        other = portrait(scene.actors[0].person, np.random.default_rng((10, number)))
        embedding = torch.from_numpy(self.recogniser.embed(other[None]))
        identity = Identity(f"person {number + 1}", {self.recogniser.hash: embedding}, {}, {}, "mean")
        true = torch.from_numpy(paint(scene, FULL.width)).float()[None] / 255
        return Case(scene, true, enlarged.float().cpu(), identity, scene.faces(FULL).faces[0])

    def encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def restore(
        self, case: Case, settings: RestoreSettings, *, landmarks: str = "exact", has_control: bool = True
    ) -> RestoredPictures:
        """Restores a case's face.

        Args:
            landmarks: exact, or estimated from the broken face.
        """
        face = case.face
        if landmarks == "estimated":
            found = self.analysis.find_faces([(case.broken[0].numpy() * 255).astype(np.uint8)])[0]
            face = min(found, key=lambda one: -one.box.iou(case.face.box), default=face)
            face = replace(face, box=case.face.box, embeddings={})
        cast = Cast((CastMember(case.identity),), FULL)
        return restore_faces(
            case.broken, [PictureFaces(FULL, (face,))], self.model, self.vae,
            self.encode(case.scene.caption.replace("full-body", "close-up")), self.encode(""),
            CropSettings(size_px=SIZE_PX, size_limit_px=0), replace(settings, match_by=MatchBy.FIRST),
            cast, self.adapter, RepControlNetFaces(self.branch) if has_control else None,
        )  # fmt: skip

    def measure(self, case: Case, picture: Tensor) -> dict[str, float]:
        """Likeness, colour step at the face's border, and where the landmarks are, against the truth."""
        shown = (picture[0].clamp(0, 1).numpy() * 255).round().astype(np.uint8)
        true = (case.true[0].numpy() * 255).round().astype(np.uint8)
        embedding = self.recogniser.embed(align_face(shown, case.face)[None])
        reference = case.identity.embeddings[self.recogniser.hash].numpy()
        outline = case.face.landmarks[:17]
        inside, outside = (case.face.landmarks[30] + (outline - case.face.landmarks[30]) * s for s in (0.85, 1.0))
        colors = [sample(image, points) for image in (shown, true) for points in (inside, outside)]
        return {
            "FaceSim": float(cosine_similarities(reference, embedding)[0, 0]),
            "colour distance": float(np.abs(colors[0] - colors[2]).mean() / 255),
            "pose error": self.pose_error(case, shown),
        }

    def pose_error(self, case: Case, shown: np.ndarray) -> float:
        """Mean distance of the landmarks found in the picture from the true ones, as a fraction of the face's size;
        1 where no face is found."""
        faces = [face for face in self.analysis.find_faces([shown])[0] if face.box.iou(case.face.box) > 0.3]
        if not faces:
            return 1.0
        away = np.linalg.norm(faces[0].landmarks - case.face.landmarks, axis=1).mean()
        return float(away / case.face.size_px)


def sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours at points, nearest pixel, (num_points, 3) float."""
    places = np.clip(points.round().astype(int), 0, np.array(image.shape[1::-1]) - 1)
    return image[places[:, 1], places[:, 0]].astype(float)


def settings(source: StyleSource = StyleSource.FACE, **options) -> RestoreSettings:  # noqa: ANN003
    fusion = FusionSettings(style_source=source, **options.pop("fusion", {}))
    return RestoreSettings(**{"cfg": CFG, "fusion": fusion, **options})


NO_FUSION = {"attention_strength": 0.0, "latent_strength": 0.0}
ROWS: dict[str, Callable[[RestorationLab, Case], RestoredPictures]] = {
    "style of the face": lambda lab, case: lab.restore(case, settings()),
    "style of the face, half as strong": lambda lab, case: lab.restore(case, settings(fusion={"style_strength": 0.5})),
    "style of the surroundings": lambda lab, case: lab.restore(case, settings(StyleSource.SURROUNDINGS)),
    "no style, background replayed": lambda lab, case: lab.restore(case, settings(StyleSource.OFF)),
    "inversion alone, no fusion": lambda lab, case: lab.restore(case, settings(StyleSource.OFF, fusion=NO_FUSION)),
    "fusion in the latent only": lambda lab, case: lab.restore(case, settings(fusion={"attention_strength": 0.0})),
    "statistics instead of maps": lambda lab, case: lab.restore(case, settings(mode=CacheMode.STATISTICS)),
    "0 repetitions": lambda lab, case: lab.restore(case, settings(repetitions=0)),
    "2 repetitions": lambda lab, case: lab.restore(case, settings(repetitions=2)),
    "4 repetitions": lambda lab, case: lab.restore(case, settings(repetitions=4)),
    "landmarks from the broken face": lambda lab, case: lab.restore(case, settings(), landmarks="estimated"),
    "no landmarks": lambda lab, case: lab.restore(case, settings(), has_control=False),
    "no landmarks, no style": lambda lab, case: lab.restore(case, settings(StyleSource.OFF), has_control=False),
}


def evaluate(num_cases: int = 16) -> list[dict[str, object]]:
    """One row for each way: means and standard errors of every measure."""
    lab = RestorationLab(num_cases)
    measured = {
        "true picture": [lab.measure(case, case.true) for case in lab.cases],
        "broken": [lab.measure(case, case.broken) for case in lab.cases],
    }
    for name, way in ROWS.items():
        measured[name] = []
        for case in lab.cases:
            result = way(lab, case)
            crop = (result.after - result.before).abs()[0]
            background = border_difference(crop)
            measured[name].append({**lab.measure(case, result.images), "background of the crop": background})
        print(f"{name}: {summary(measured[name])}", flush=True)
    return [{"way": name, **summary(rows)} for name, rows in measured.items()]


def border_difference(difference: Tensor) -> float:
    """Mean absolute difference in the outer eighth of a crop, before it is pasted: what the background would suffer."""
    side = difference.shape[0]
    edge = side // 8
    outer = torch.ones(side, side, dtype=torch.bool)
    outer[edge:-edge, edge:-edge] = False
    return float(difference[outer].mean())


def summary(rows: list[dict[str, float]]) -> dict[str, str]:
    """Mean +- standard error of each measure."""
    return {
        name: f"{np.mean(values):.3f} +- {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"
        for name in rows[0]
        if (values := [row[name] for row in rows])
    }
