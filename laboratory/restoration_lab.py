"""`dev.py world evaluate restoration | full-body`: DIIR on held-out full-body pictures (Tables 2 and 4, Fig. 8).

In `restoration`, the autoencoder alone breaks the faces, so that the true picture is known. This comparison decided the
defaults of Restore Faces. In `full-body`, the pictures are generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.sample
import numpy as np
import torch
from torch import Tensor

from ..fpga_core.faces.face import Face, PictureFaces
from ..fpga_core.patching.cast.apply import apply_cast
from ..fpga_core.patching.repcontrolnet.apply import apply_repcontrolnet
from ..fpga_core.patching.restoration.controls import RepControlNetFaces
from ..fpga_core.patching.restoration.faces import RestoredPictures, restore_faces
from ..fpga_core.patching.restoration.restorer import FaceRestorer
from ..fpga_core.restoration.cache_plan import CacheMode
from ..fpga_core.restoration.face_crops import crop_faces
from ..fpga_core.restoration.fusion import FusionSettings, StyleSource
from ..fpga_core.restoration.matching import MatchBy
from ..fpga_core.restoration.paste import paste_faces
from ..fpga_core.restoration.settings import CropSettings, InversionSettings, RestoreSettings
from .gallery import SIZE_PX
from .generation_lab import controlnet_way, shipped_way, ways_of
from .laboratory import CFG, FULL, NEGATIVE, STEPS, Case, Laboratory, Way, as_bytes, enlarge, save_pictures
from .painter import paint
from .scenes import Shot
from .tables import markdown

NUM_CASES = 12
CROP = CropSettings(size_px=SIZE_PX, size_limit_px=0)


@dataclass(frozen=True, eq=False)
class Broken:
    """One full-body picture whose face is broken.

    Attributes:
        case: what it shows.
        true, picture: (1, height, width, 3), painted at full size, and encoded and decoded at a quarter of that size.
        face: the exact face.
    """

    case: Case
    true: Tensor
    picture: Tensor
    face: Face


class RestorationLab:
    """Broken pictures, and ways to restore them."""

    def __init__(self) -> None:
        self.lab = Laboratory()
        way = shipped_way()
        assert way.branch is not None
        self.branch, self.adapter = way.branch, way.adapter

    def broken(self, case: Case) -> Broken:
        decoded = self.lab.vae.decode(self.lab.vae.encode(case.painted())).float().cpu().clamp(0, 1)
        true = torch.from_numpy(paint(case.scene, FULL.width)).float()[None] / 255
        return Broken(case, true, enlarge(decoded), case.faces.faces[0])

    def face_of(self, one: Broken, landmarks: str) -> Face:
        """Returns the face as the pipeline would know it.

        Args:
            landmarks: `exact`, or `estimated` from the broken face.
        """
        if landmarks == "exact":
            return one.face
        found = self.lab.find_faces(one.picture).faces
        nearest = max(found, key=lambda face: face.box.iou(one.face.box), default=one.face)
        return replace(nearest, box=one.face.box, embeddings={})

    def prompts(self, case: Case) -> tuple[list, list]:
        """Encodes the prompts of a crop of the face."""
        return self.lab.encode(case.scene.caption.replace("full-body", "close-up")), self.lab.encode(NEGATIVE)

    def restore(
        self, one: Broken, settings: RestoreSettings, *, landmarks: str = "exact", has_control: bool = True
    ) -> RestoredPictures:
        """Restores a picture with DIIR, as Restore Faces does."""
        positive, negative = self.prompts(one.case)
        restorer = FaceRestorer(
            model=self.lab.model,
            vae=self.lab.vae,
            positive=positive,
            negative=negative,
            settings=replace(settings, match_by=MatchBy.FIRST),
            cast=one.case.everywhere,
            adapter=self.adapter,
            control=RepControlNetFaces(self.branch) if has_control else None,
        )
        return restore_faces(one.picture, [PictureFaces(FULL, (self.face_of(one, landmarks),))], restorer)

    def inpaint(
        self, one: Broken, denoise: float, *, landmarks: str = "exact", has_control: bool = True
    ) -> RestoredPictures:
        """Repaints the same crop with img2img under a noise mask, as common face detailers do."""
        faces = [PictureFaces(FULL, (self.face_of(one, landmarks),))]
        (face,) = crop_faces(one.picture, faces, CROP, hint_style=RestoreSettings().hint_style)
        model, (positive, negative) = self.lab.model, self.prompts(one.case)
        if has_control:
            assert face.hint is not None
            applied = apply_repcontrolnet(model, positive, negative, branch=self.branch, image=face.hint[None])
            model, positive, negative = applied.model, applied.positive, applied.negative
        assert self.adapter is not None
        model, positive, negative = apply_cast(
            model, positive, negative, adapter=self.adapter, cast=one.case.everywhere
        )
        latent = self.lab.vae.encode(face.crop[None])
        samples = comfy.sample.sample(
            model,
            comfy.sample.prepare_noise(latent, one.case.number),
            steps=STEPS,
            cfg=CFG,
            sampler_name="ddim",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latent,
            denoise=denoise,
            noise_mask=face.fusion_mask[None, None],
            disable_pbar=True,
            seed=one.case.number,
        )
        after = self.lab.vae.decode(samples).float().cpu().clamp(0, 1)
        restored = replace(face, crop=after[0])
        pasted, changed = paste_faces(one.picture, [restored])
        return RestoredPictures(pasted, face.crop[None], after, changed, report="")

    def measure(self, one: Broken, picture: Tensor) -> dict[str, float]:
        """Measures likeness and pose, and the colour step at the face's border against the true picture's."""
        found = self.lab.find_faces(picture)
        near = [face for face in found.faces if face.box.iou(one.face.box) > 0.1]
        figures = self.lab.likenesses(one.case, PictureFaces(FULL, tuple(near)))
        outline = one.face.landmarks[:17]
        inside, outside = (one.face.landmarks[30] + (outline - one.face.landmarks[30]) * s for s in (0.85, 1.0))
        images = (as_bytes(picture), as_bytes(one.true))
        colors = [sample(image, points) for image in images for points in (inside, outside)]
        return {
            "FaceSim": figures["FaceSim"],
            "pose error": self.lab.pose_error(one.case, found),
            "colour distance": float(np.abs(colors[0] - colors[2]).mean() / 255),
        }


def face_of(one: Broken, picture: Tensor) -> Tensor:
    """Returns the face and its surroundings in a picture, (1, side, side, 3)."""
    x, y = one.face.box.center
    side = int(1.8 * one.face.size_px)
    left, top = (min(max(int(middle - side / 2), 0), FULL.width - side) for middle in (x, y))
    return picture[:, top : top + side, left : left + side]


def sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the colours of the pixels nearest to points, (num_points, 3) float."""
    places = np.clip(points.round().astype(int), 0, np.array(image.shape[1::-1]) - 1)
    return image[places[:, 1], places[:, 0]].astype(float)


def settings(source: StyleSource = StyleSource.FACE, **options) -> RestoreSettings:  # noqa: ANN003
    fusion = FusionSettings(style_source=source, **options.pop("fusion", {}))
    inversion = InversionSettings(**options.pop("inversion", {}))
    return RestoreSettings(**{"cfg": CFG, "crop": CROP, "inversion": inversion, "fusion": fusion, **options})


STATISTICS = {"mode": CacheMode.STATISTICS}
NO_FUSION = {"attention_strength": 0.0, "latent_strength": 0.0}
ROWS: dict[str, Callable[[RestorationLab, Broken], RestoredPictures]] = {
    "style of the face": lambda lab, one: lab.restore(one, settings()),
    "style of the face, half as strong": lambda lab, one: lab.restore(one, settings(fusion={"style_strength": 0.5})),
    "style of the surroundings": lambda lab, one: lab.restore(one, settings(StyleSource.SURROUNDINGS)),
    "no style, background replayed": lambda lab, one: lab.restore(one, settings(StyleSource.OFF)),
    "inversion alone, no fusion": lambda lab, one: lab.restore(one, settings(StyleSource.OFF, fusion=NO_FUSION)),
    "fusion in the latent only": lambda lab, one: lab.restore(one, settings(fusion={"attention_strength": 0.0})),
    "statistics instead of maps": lambda lab, one: lab.restore(one, settings(inversion=STATISTICS)),
    "0 repetitions": lambda lab, one: lab.restore(one, settings(inversion={"repetitions": 0})),
    "2 repetitions": lambda lab, one: lab.restore(one, settings(inversion={"repetitions": 2})),
    "4 repetitions": lambda lab, one: lab.restore(one, settings(inversion={"repetitions": 4})),
    "landmarks from the broken face": lambda lab, one: lab.restore(one, settings(), landmarks="estimated"),
    "no landmarks": lambda lab, one: lab.restore(one, settings(), has_control=False),
    "no landmarks, no style": lambda lab, one: lab.restore(one, settings(StyleSource.OFF), has_control=False),
    "inpainting, denoise 0.6": lambda lab, one: lab.inpaint(one, 0.6),
    "inpainting, denoise 0.9": lambda lab, one: lab.inpaint(one, 0.9),
    "inpainting 0.6, landmarks from the broken face": lambda lab, one: lab.inpaint(one, 0.6, landmarks="estimated"),
    "inpainting 0.9, landmarks from the broken face": lambda lab, one: lab.inpaint(one, 0.9, landmarks="estimated"),
    "inpainting 0.6, no landmarks": lambda lab, one: lab.inpaint(one, 0.6, has_control=False),
    "inpainting 0.9, no landmarks": lambda lab, one: lab.inpaint(one, 0.9, has_control=False),
}


def evaluate_restoration(folder: Path) -> str:
    """Measures Table 4 and Fig. 8, with one row for each way."""
    lab = RestorationLab()
    cases = [lab.broken(case) for case in lab.lab.cases(Shot.FULL, NUM_CASES)]
    untouched = {"true picture": lambda one: one.true, "broken": lambda one: one.picture}
    rows: dict[str, list[Mapping[str, float]]] = {
        name: [{**lab.measure(one, picture(one)), BACKGROUND: 0.0} for one in cases]
        for name, picture in untouched.items()
    }
    shown = {name: [face_of(one, picture(one)) for one in cases] for name, picture in untouched.items()}
    for name, way in ROWS.items():
        rows[name], shown[name] = [], []
        for one in cases:
            result = way(lab, one)
            background = border_difference((result.after - result.before).abs()[0])
            rows[name].append({**lab.measure(one, result.images), BACKGROUND: background})
            shown[name].append(face_of(one, result.images))
        print(markdown({name: rows[name]}).splitlines()[-1], flush=True)
    save_pictures(folder / "tables" / "restoration.jpg", shown)
    return markdown(rows)


BACKGROUND = "background of the crop"


def evaluate_full_body(folder: Path) -> str:
    """Measures Table 2: full-body pictures by several generators, without and with DIIR.

    DIIR restores the face that the control's landmarks describe. Without a control it restores the largest face found.
    """
    lab = RestorationLab()
    cases = lab.lab.cases(Shot.FULL, NUM_CASES)
    ways = ways_of(
        {
            "FPGA, ControlNet form, 1,200 iterations": lambda: controlnet_way(folder / "controlnet"),
            "FPGA, RepControlNet folded": lambda: Way(branch=lab.branch, adapter=lab.adapter),
            "RepControlNet, no identity": lambda: Way(branch=lab.branch),
            "base, text alone": Way,
        }
    )
    rows: dict[str, list[Mapping[str, float]]] = {}
    shown: dict[str, list[Tensor]] = {}
    for name, way in ways.items():
        for suffix in ("", " + DIIR"):
            rows[name + suffix], shown[name + suffix] = [], []
        for case, generated in zip(cases, lab.lab.generate(way, cases), strict=True):
            picture = enlarge(generated)
            found = lab.lab.find_faces(picture)
            rows[name].append(lab.lab.measure(case, picture))
            shown[name].append(picture)
            face = max(found.faces, key=lambda face: face.box.area, default=None)
            if way.branch is not None or way.control_net is not None:
                face = case.faces.faces[0]
            if face is not None:
                one = Broken(case, picture, picture, face)
                picture = lab.restore(one, settings()).images
            rows[name + " + DIIR"].append(lab.lab.measure(case, picture))
            shown[name + " + DIIR"].append(picture)
        print(markdown({key: rows[key] for key in (name, name + " + DIIR")}), flush=True)
    save_pictures(folder / "tables" / "full-body.jpg", shown)
    return markdown(rows)


def border_difference(difference: Tensor) -> float:
    """Returns the mean absolute difference in the outer eighth of a crop before pasting: the background's change."""
    side = difference.shape[0]
    edge = side // 8
    outer = torch.ones(side, side, dtype=torch.bool)
    outer[edge:-edge, edge:-edge] = False
    return float(difference[outer].mean())
