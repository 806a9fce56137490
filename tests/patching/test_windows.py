"""Controls in sliding windows of frames, of the host and of others: each frame keeps its own condition image."""

import comfy.context_windows
import comfy.patcher_extension
import pytest
import torch
from eq1_reference import relative_error
from fpga.fpga_core.patching.cast.controlnet import apply_cast_controlnet
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.fpga_core.patching.repcontrolnet.hint import HintControl
from random_branches import random_branch
from tiny_controlnets import tiny_controlnet
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

NUM_FRAMES, WINDOW = 6, 3
IMAGES = torch.linspace(0, 1, NUM_FRAMES)[:, None, None, None].expand(-1, 128, 128, 3)


def controlled(kind: str, model, images):
    """Model and prompts with one of our controls, which gets one image for each frame."""
    texts = conditioning(1), conditioning(2)
    if kind == "repcontrolnet":
        branch = random_branch(model.model.diffusion_model)
        settings = RepControlNetSettings(mode=BranchMode.FOLDED)
        applied = apply_repcontrolnet(model, *texts, branch=branch, image=images, settings=settings)
        return applied.model, applied.positive, applied.negative
    people = cast(member(1, (0.0, 0.1, 0.45, 0.8)))
    return (
        model,
        *apply_cast_controlnet(
            *texts, tiny_controlnet(), adapter=tiny_adapter(), cast=people, image=images, strength=20.0
        ),
    )


def in_host_windows(model):
    """Windows of three frames that do not overlap, so that each frame is sampled once, in one window."""
    model = model.clone()
    model.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("flat"),
        context_length=WINDOW,
        context_overlap=0,
        dim=0,
    )
    return model


def in_windows_of_others(model):
    """As AnimateDiff-style packs do: they write the window's frames to every control that has `sub_idxs`."""
    model = model.clone()

    def windows(executor, base, conds, x_in, timestep, model_options):
        results = [torch.zeros_like(x_in) for _ in conds]
        for start in range(0, NUM_FRAMES, WINDOW):
            frames = list(range(start, start + WINDOW))
            for entry in (entry for cond in conds for entry in cond):
                control = entry["control"]
                assert hasattr(control, "sub_idxs")
                control.sub_idxs = frames
            parts = executor(base, conds, x_in[frames], timestep[frames], model_options)
            for result, part in zip(results, parts, strict=True):
                result[frames] = part
        return results

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.CALC_COND_BATCH, "windows", windows)
    return model


@pytest.mark.parametrize("kind", ["repcontrolnet", "cast"])
@pytest.mark.parametrize("windows", [in_host_windows, in_windows_of_others])
@torch.inference_mode()
def test_each_frame_keeps_its_image_in_every_window(kind, windows):
    """Without a motion module, frames do not see each other: windows must change nothing."""
    model = tiny_model()
    run = controlled(kind, model, IMAGES)
    expected = sample(*run, batch=NUM_FRAMES, steps=2)
    actual = sample(windows(run[0]), *run[1:], batch=NUM_FRAMES, steps=2)
    same = sample(*controlled(kind, model, IMAGES[:1].expand_as(IMAGES)), batch=NUM_FRAMES, steps=2)
    effect = relative_error(same, expected)
    assert effect > 1e-4  # the images matter
    assert relative_error(actual, expected) < 0.02 * effect


def test_copies_begin_without_a_window():
    control = HintControl.from_branch(random_branch(tiny_model().model.diffusion_model))
    control.sub_idxs = [1, 2]
    assert control.copy().sub_idxs is None
    control.cleanup()
    assert control.sub_idxs is None
