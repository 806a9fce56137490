"""RepControlNet where ComfyUI's memory management is the one of an Nvidia GPU; skipped, saying so, without one."""

import comfy.model_management
import pytest
import torch
from fpga.fpga_core.patching.repcontrolnet.apply import apply_repcontrolnet
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.repcontrolnet.live import attach_branch
from random_branches import random_branch
from tiny_models import conditioning, sample, tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(autouse=True)
def exact_kernels():
    """Without TF32, whose rounding is larger than what is compared, and with kernels that repeat their results."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.use_deterministic_algorithms(was_deterministic)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_live_and_folded_agree_to_rounding(dtype):
    model = tiny_model(dtype=dtype)
    branch = random_branch(tiny_model().model.diffusion_model, dtype=dtype)
    conds = conditioning(1), conditioning(2)
    folded = sample(fold_branch(model, branch), *conds).float()
    live = sample(attach_branch(model, branch), *conds).float()
    bound = 1e-4 if dtype is torch.float32 else 0.05
    assert float((live - folded).norm() / folded.norm()) <= bound


def test_the_base_is_bit_identical_and_the_memory_is_given_back():
    model = tiny_model()
    branch = random_branch(model.model.diffusion_model)
    conds = conditioning(1), conditioning(2)
    before = sample(model, *conds)
    weights = {name: value.cpu().clone() for name, value in model.model.state_dict().items()}
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    allocated = torch.cuda.memory_allocated()
    applied = apply_repcontrolnet(model, *conds, branch=branch, image=torch.rand(1, 128, 128, 3))
    sample(applied.model, applied.positive, applied.negative)
    comfy.model_management.unload_all_models()
    after = model.model.state_dict()
    assert all(torch.equal(after[name].cpu(), value) for name, value in weights.items())
    again = sample(model, *conds)
    assert float((again - before).norm() / before.norm()) <= 1e-5
    del applied
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    assert torch.cuda.memory_allocated() <= allocated + 2**20
