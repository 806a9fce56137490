"""A whole picture on a full-size SD1.5, in its parts: prompts, generation with a folded branch, one restored face.

The paper's settings: 512x512, 30 steps with guidance 5, one person, and DIIR of one face. The restoration also runs for
four faces in one batch. Not included are loading and folding, which a queue does once, and the detector, which works on
the CPU. The weights are random, because they do not change the time. The goal on an H100 or H200 is one second in all.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import comfy.ldm.models.autoencoder
import comfy.model_management
import comfy.sample
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from _models import SMALL_UNET, random_, random_model
from _report import arguments, ratio_rows, report, synchronise
from fpga.fpga_core.faces.face import PictureFaces
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.repcontrolnet.apply import apply_repcontrolnet
from fpga.fpga_core.patching.restoration.controls import RepControlNetFaces
from fpga.fpga_core.patching.restoration.restorer import FaceRestorer
from fpga.fpga_core.restoration.face_crops import FaceCrop, crop_faces
from fpga.fpga_core.restoration.matching import Match
from fpga.fpga_core.restoration.paste import paste_faces
from fpga.fpga_core.restoration.settings import CropSettings, InversionSettings, RestoreSettings
from fpga.fpga_core.shapes import Extent
from random_adapters import faceid, random_identity, read_adapter
from random_branches import random_branch
from tiny_faces import face, tiny_vae
from unet_configs import SD15_UNET

Result = TypeVar("Result")

NUM_STEPS, CFG = 30, 5.0
NUM_FACES = 4
VAE_CONFIG = {
    **{"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128},
    **{"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0},
}


def random_vae() -> comfy.sd.VAE:
    network = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=VAE_CONFIG, embed_dim=4)
    return comfy.sd.VAE(sd=random_(network).state_dict())


def random_clip() -> comfy.sd.CLIP:
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    clip = comfy.sd.CLIP(target)
    random_(clip.cond_stage_model)
    return clip


class Pipeline:
    """The models of the pipeline, and its parts."""

    def __init__(self, *, is_tiny: bool) -> None:
        config, self.size = (SMALL_UNET, 128) if is_tiny else (SD15_UNET, 512)
        self.steps = 2 if is_tiny else NUM_STEPS
        self.model, self.clip = random_model(config), random_clip()
        self.vae = tiny_vae() if is_tiny else random_vae()
        self.branch = random_branch(self.model.model.diffusion_model, scale=0.1, dtype=torch.bfloat16)
        self.adapter = read_adapter(faceid("small_sd" if is_tiny else "sd15", lora_rank=0))
        self.drawing = torch.rand(1, self.size, self.size, 3)
        self.noise = torch.randn(1, 4, self.size // 8, self.size // 8)
        self.people = [CastMember(random_identity(name=str(seed), seed=seed)) for seed in range(NUM_FACES)]

    def encoded(self) -> tuple[list, list]:
        positive, negative = (
            self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text)) for text in ("a person in a park", "")
        )
        return positive, negative

    def prepared(self) -> tuple:
        """Model and prompts with branch and identity."""
        applied = apply_repcontrolnet(self.model, *self.encoded(), branch=self.branch, image=self.drawing)
        cast = Cast((self.people[0],), Extent(self.size, self.size))
        return apply_cast(applied.model, applied.positive, applied.negative, adapter=self.adapter, cast=cast)

    def generated(self, prepared: tuple) -> torch.Tensor:
        latent = comfy.sample.sample(
            prepared[0], self.noise, self.steps, CFG, "euler", "normal", *prepared[1:3], torch.zeros_like(self.noise),
            disable_pbar=True, seed=0,
        )  # fmt: skip
        return self.vae.decode(latent)

    def restored(self, picture: torch.Tensor, prompts: tuple[list, list], num_faces: int) -> torch.Tensor:
        restorer, _ = FaceRestorer(
            model=self.model,
            vae=self.vae,
            positive=prompts[0],
            negative=prompts[1],
            settings=RestoreSettings(
                steps=self.steps,
                cfg=CFG,
                crop=CropSettings(size_px=self.size),
                inversion=InversionSettings(repetitions=0),
            ),
            cast=Cast(tuple(self.people), Extent(self.size, self.size)),
            adapter=self.adapter,
            control=RepControlNetFaces(self.branch),
        ).decided()
        crops = self.crops(picture, num_faces, restorer)
        after = [replace(one, crop=new.crop) for one, new in zip(crops, restorer.restore(crops), strict=True)]
        return paste_faces(picture, after)[0]

    def crops(self, picture: torch.Tensor, num_faces: int, restorer: FaceRestorer) -> list[FaceCrop]:
        side = self.size // 8
        faces = tuple(face(side * (2 * n + 0.5), side, side, side, seed=n) for n in range(num_faces))
        found = [PictureFaces(Extent(self.size, self.size), faces)]
        matches = [[Match(n, "known") for n in range(num_faces)]]
        settings = restorer.settings
        return crop_faces(picture, found, settings.crop, matches=matches, hint_style=settings.hint_style)


def timed(seconds: dict[str, list[float]], name: str, run: Callable[[], Result]) -> Result:
    synchronise()
    began = time.perf_counter()
    result = run()
    synchronise()
    seconds[name].append(time.perf_counter() - began)
    return result


def main() -> None:
    options = arguments(__doc__)
    seconds: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        pipeline = Pipeline(is_tiny=options.tiny)
        prepared = pipeline.prepared()
        for _ in range(options.rounds + 1):
            prompts = timed(seconds, "prompts", pipeline.encoded)
            picture = timed(seconds, "generation", partial(pipeline.generated, prepared))
            timed(seconds, "one restored face", partial(pipeline.restored, picture, prompts, 1))
            timed(seconds, f"{NUM_FACES} restored faces", partial(pipeline.restored, picture, prompts, NUM_FACES))
    measured = {name: values[1:] for name, values in seconds.items()}  # without the warm-up
    parts = list(measured)[:3]
    measured["in all, one face"] = [sum(round_) for round_ in zip(*(measured[part] for part in parts), strict=True)]
    title = f"A picture of {pipeline.size} pixels, {pipeline.steps} steps, bfloat16, {pipeline.model.load_device}"
    report(title, ratio_rows(measured, "in all, one face"), options.json)


if __name__ == "__main__":
    main()
