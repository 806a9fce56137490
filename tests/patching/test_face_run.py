"""What a run takes: batches that fit the budget, the size of its crops, and why a face is left alone."""

from dataclasses import replace

import torch
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.recognisers import ANTELOPEV2, AURAFACE, BUFFALO_L
from fpga.fpga_core.patching.restoration.checks import family_of
from fpga.fpga_core.patching.restoration.faces import restore_faces
from fpga.fpga_core.patching.restoration.restorer import FaceRestorer
from fpga.fpga_core.restoration.fusion import FusionSettings
from fpga.fpga_core.restoration.settings import CropSettings, InversionSettings, RestoreSettings
from fpga.fpga_core.shapes import Extent
from tiny_faces import face, found, pictures, tiny_vae
from tiny_identities import person, tiny_adapter
from tiny_models import conditioning, tiny_model

CROP = CropSettings(size_px=64, size_limit_px=50)
PROMPTS = {"positive": conditioning(1), "negative": conditioning(2)}


def test_a_scheduler_that_makes_a_step_more_stays_within_the_budget():
    """ddim_uniform makes 27 steps of 26: the maps of two faces then take more than the mebibyte that 26 would fit."""
    progress = []

    def callback(model, num_steps):
        return lambda step, x0, x, total: progress.append((step, total, num_steps))

    inversion = InversionSettings(repetitions=0, budget_mib=1)
    settings = RestoreSettings(
        steps=26, scheduler="ddim_uniform", crop=CROP, fusion=FusionSettings(), inversion=inversion, cfg=1.0
    )
    faces = found((face(20, 20, 24, 30), face(100, 60, 30, 36)))
    restorer = FaceRestorer(model=tiny_model(), vae=tiny_vae(), settings=settings, make_callback=callback, **PROMPTS)
    with torch.inference_mode():
        result = restore_faces(pictures(), faces, restorer)
    assert result.report.startswith("2 of 2 faces restored")
    assert progress == [(step, 27, 27) for step in range(27)] * 4  # two batches, inverted and restored


def test_sd2_that_predicts_v_was_trained_on_larger_pictures():
    for width, v_prediction, size in ((1024, True, 768), (1024, False, 512), (768, True, 512)):
        model = tiny_model(context_dim=width, v_prediction=v_prediction)
        assert family_of(model).native_size_px(model) == size


def test_a_cast_of_another_recogniser_is_named_as_the_reason():
    model = tiny_model()
    stranger = Identity("stranger", {BUFFALO_L: person(1).embeddings[BUFFALO_L], AURAFACE: torch.randn(1, 512)})
    small = face(20, 20, 24, 30, 2)
    seen = replace(small, embeddings={ANTELOPEV2: small.embeddings[BUFFALO_L]})
    strangers = Cast((CastMember(stranger),), Extent(160, 120))
    settings = RestoreSettings(steps=1, crop=CROP, inversion=InversionSettings(repetitions=0))
    for who, text in ((seen, "no recogniser saw both"), (small, "nobody in the cast matches it\n")):
        with torch.inference_mode():
            restorer = FaceRestorer(
                model=model, vae=tiny_vae(), **PROMPTS, settings=settings, cast=strangers, adapter=tiny_adapter(model)
            )
            result = restore_faces(pictures(), found((who, face(100, 60, 30, 36))), restorer)
        assert text in result.report and torch.equal(result.images, pictures())
