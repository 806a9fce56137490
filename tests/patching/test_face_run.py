"""How faces are divided into batches: by what a run really takes."""

import torch
from fpga.fpga_core.patching.face_run import RestoreSettings
from fpga.fpga_core.patching.restore_faces import restore_faces
from fpga.fpga_core.restoration.face_crops import CropSettings
from tiny_faces import face, found, pictures, tiny_vae
from tiny_models import conditioning, tiny_model


def test_a_scheduler_that_makes_a_step_more_stays_within_the_budget():
    """ddim_uniform makes 27 steps of 26: the maps of two faces then take more than the mebibyte that 26 would fit."""
    progress = []

    def callback(model, num_steps):
        return lambda step, x0, x, total: progress.append((step, total, num_steps))

    settings = RestoreSettings(steps=26, scheduler="ddim_uniform", repetitions=0, cfg=1.0, budget_mib=1)
    faces = found((face(20, 20, 24, 30), face(100, 60, 30, 36)))
    with torch.inference_mode():
        result = restore_faces(
            pictures(), faces, tiny_model(), tiny_vae(), conditioning(1), conditioning(2),
            CropSettings(size_px=64, size_limit_px=50), settings, make_callback=callback,
        )  # fmt: skip
    assert result.report.startswith("2 of 2 faces restored")
    assert progress == [(step, 27, 27) for step in range(27)] * 4  # two batches, inverted and restored
