"""A cast on a compiled model: no graph break more than without it, and no compilation when the cast changes."""

import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from eq1_reference import relative_error
from fpga.fpga_core.patching.cast.apply import apply_cast
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model
from torch._dynamo.utils import counters


@pytest.fixture
def model():
    """One level of two blocks, with an attention that can be traced (the CPU's asks the system for its memory)."""
    model = tiny_model(
        num_res_blocks=[1],
        channel_mult=[1],
        transformer_depth=[1],
        transformer_depth_output=[1, 1],
        transformer_depth_middle=0,
    )
    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = lambda func, *args, **kwargs: attention_pytorch(*args, **kwargs)
    torch._dynamo.reset()
    yield model
    torch._dynamo.reset()


def compiled(model):
    model = model.clone()
    set_torch_compile_wrapper(model, backend="eager")
    return model


def compilations(model, positive, negative) -> tuple[int, int]:
    """Returns the numbers of compiled frames and of graph breaks in a run."""
    counters.clear()
    sample(compiled(model), positive, negative, steps=2)
    return counters["frames"]["ok"], counters["graph_break"].total()


@pytest.mark.parametrize("has_own_projections", [True, False])
@torch.inference_mode()
def test_a_compiled_model_takes_another_cast_as_it_is(model, has_own_projections):
    texts, adapter = (conditioning(1), conditioning(2)), tiny_adapter(model if has_own_projections else None)
    small = cast(member(1, (0.1, 0.1, 0.4, 0.4)), member(2, (0.6, 0.5, 0.9, 0.9)))
    other = cast(member(3, (0.1, 0.1, 0.3, 0.6)), member(4, (0.5, 0.5, 0.9, 0.9)), member(5, (0.7, 0.0, 1.0, 0.4)))
    applied = [apply_cast(model, *texts, adapter=adapter, cast=people) for people in (small, other)]
    _, without = compilations(model, *texts)
    frames, breaks = compilations(*applied[0])
    assert frames > 0
    assert (without, breaks) == (0, 0)
    assert compilations(*applied[1]) == (0, 0)
    for run in applied:
        assert relative_error(sample(compiled(run[0]), *run[1:]), sample(*run)) < 1e-6
