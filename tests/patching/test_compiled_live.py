"""A live RepControlNet on a compiled model, after the plain model was compiled and run."""

import torch
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from random_branches import random_branch
from tiny_models import conditioning, sample, tiny_model


def compiled(model):
    model = model.clone()
    set_torch_compile_wrapper(model, backend="eager")
    return model


@torch.inference_mode()
def test_a_live_branch_acts_fully_on_a_compiled_model():
    positive, negative, size = conditioning(1), conditioning(2), {"steps": 3, "size": (8, 8)}
    model = tiny_model(
        num_res_blocks=[1], channel_mult=[1], transformer_depth=[1], transformer_depth_output=[1, 1],
        transformer_depth_middle=0,
    )  # fmt: skip
    branch = random_branch(model.model.diffusion_model, scale=0.3)
    settings = RepControlNetSettings(mode=BranchMode.LIVE, strength=0.0)
    live = apply_repcontrolnet(
        model, positive, negative, branch=branch, image=torch.rand(1, 64, 64, 3), settings=settings
    )
    sample(compiled(model), positive, negative, **size)
    expected = sample(live.model, positive, negative, **size)
    actual = sample(compiled(live.model), positive, negative, **size)
    assert float((actual - expected).norm() / expected.norm()) < 1e-4
