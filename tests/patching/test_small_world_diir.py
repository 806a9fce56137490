"""DIIR does what it is for, on the shipped weights, at its default settings: broken faces look like their people."""

from dataclasses import replace

import numpy as np
import torch
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast
from fpga.fpga_core.patching.restoration.controls import RepControlNetFaces
from fpga.fpga_core.patching.restoration.faces import restore_faces
from fpga.fpga_core.patching.restoration.restorer import FaceRestorer
from fpga.fpga_core.restoration.matching import MatchBy
from fpga.fpga_core.restoration.settings import InversionSettings, RestoreSettings
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.laboratory import CFG, FULL, NEGATIVE
from fpga.laboratory.restoration_lab import CROP, RestorationLab
from fpga.laboratory.scenes import Shot

NUM_CASES = 12


def moved(face: Face, number: int) -> Face:
    """A face of a picture that stands below `number` others."""
    down, box = number * FULL.height, face.box
    return replace(face, box=Box(box.x0, box.y0 + down, box.x1, box.y1 + down), landmarks=face.landmarks + (0, down))


@torch.inference_mode()
def test_diir_raises_facesim():
    lab = RestorationLab()
    broken = [lab.broken(case) for case in lab.lab.cases(Shot.FULL, NUM_CASES)]
    members = tuple(one.case.cast.members[0] for one in broken)
    positive, negative = lab.lab.encode("close-up of a person"), lab.lab.encode(NEGATIVE)
    settings = RestoreSettings(
        steps=12, cfg=CFG, crop=CROP, inversion=InversionSettings(repetitions=0), match_by=MatchBy.ORDER
    )
    restorer = FaceRestorer(
        model=lab.lab.model,
        vae=lab.lab.vae,
        positive=positive,
        negative=negative,
        settings=settings,
        cast=Cast(members, FULL),
        adapter=lab.adapter,
        control=RepControlNetFaces(lab.branch),
    )
    # One picture below the other, so that all faces go through the model at once, each as its own person.
    tall = torch.cat([one.picture for one in broken], dim=1)
    faces, extent = [one.face for one in broken], Extent(FULL.width, FULL.height * NUM_CASES)
    result = restore_faces(tall, [PictureFaces(extent, tuple(map(moved, faces, range(NUM_CASES))))], restorer)
    pictures = result.images.split(FULL.height, dim=1)
    before = np.array([lab.measure(one, one.picture)["FaceSim"] for one in broken])
    after = np.array([lab.measure(one, picture)["FaceSim"] for one, picture in zip(broken, pictures, strict=True)])
    assert (after - before).mean() >= 0.25
    assert torch.equal(result.images[result.masks == 0], tall[result.masks == 0])
    assert result.report.endswith("background: maximum difference 0 outside the masks")
