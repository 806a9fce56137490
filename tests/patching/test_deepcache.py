"""DeepCache on the host's UNets: what a shallow step computes, whose features it takes, and that nothing stays."""

import gc
import weakref
from functools import partial

import comfy.model_base
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from fpga.fpga_core.acceleration.deepcache import DeepCacheSettings
from fpga.fpga_core.errors import InvalidInputError, PatchConflictError, UnsupportedModeError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.acceleration.deepcache import DEEP, KEPT, KEY, apply_deepcache
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.fpga_core.patching.restoration.checks import check_restoring_model
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.shapes import Extent
from random_adapters import faceid, read_adapter
from random_branches import random_branch
from tiny_controlnets import tiny_controlnet
from tiny_identities import person
from tiny_models import conditioning, tiny_model, tiny_sdxl
from tiny_models import sample as sample_
from tiny_transformers import TINY
from torch._dynamo.utils import counters
from torch.testing import assert_close

import nodes

IMAGE = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))


def texts():
    return conditioning(1), conditioning(2)


sample = partial(sample_, size=(8, 8))
WHOLE_RUN = StepRange()


def deepcache(model, interval: int = 3, branch: int = 0, steps: StepRange = WHOLE_RUN):
    return apply_deepcache(model, DeepCacheSettings(interval=interval, branch=branch), steps)


def with_cast(model, positive, negative):
    members = (
        CastMember(person(1), Region.from_box(Box(0, 0, 0.5, 1))),
        CastMember(person(2), Region.from_box(Box(0.5, 0, 1, 1))),
    )
    adapter = read_adapter(faceid("tiny", lora_rank=0))
    return apply_cast(model, positive, negative, adapter=adapter, cast=Cast(members, Extent(128, 128)))


def with_branch(mode: BranchMode):
    def apply(model, positive, negative):
        branch = random_branch(model.model.diffusion_model)
        settings = RepControlNetSettings(mode=mode)
        applied = apply_repcontrolnet(model, positive, negative, branch=branch, image=IMAGE, settings=settings)
        return applied.model, applied.positive, applied.negative

    return apply


def with_controlnet(model, positive, negative):
    apply = nodes.ControlNetApplyAdvanced().apply_controlnet
    return model, *apply(positive, negative, tiny_controlnet(), IMAGE, 1.0, 0.0, 1.0)


def with_free_u(model, positive, negative):
    from comfy_extras.nodes_freelunch import FreeU_V2

    return FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2)[0], positive, negative


FORMS = {
    "plain": lambda *to: to,
    "cast": with_cast,
    "folded": with_branch(BranchMode.FOLDED),
    "live": with_branch(BranchMode.LIVE),
    "controlnet": with_controlnet,
    "FreeU": with_free_u,
    "all": lambda *to: with_controlnet(*with_cast(*with_branch(BranchMode.FOLDED)(*to))),
}


class Recorder:
    """Sees each call of a model in its run: whether it is shallow, and of how many items."""

    def __init__(self, model):
        self.calls: list[tuple[bool, int]] = []
        self.runs: list[weakref.ref] = []
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "recorder", self.see_run)
        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "recorder", self.see)

    def see_run(self, executor, x, timestep, options, *args):
        self.runs.append(weakref.ref(options["transformer_options"][KEY]))
        return executor(x, timestep, options, *args)

    def see(self, executor, x, timesteps, context, y, control, options, **kwargs):
        assert KEY not in options  # a compiled model would be bound to it
        self.calls.append((DEEP in options, len(x)))
        return executor(x, timesteps, context, y, control, options, **kwargs)

    @property
    def shallow(self) -> list[bool]:
        return [is_shallow for is_shallow, _ in self.calls]


def recorded(model) -> Recorder:
    """A recorder that stands before DeepCache."""
    recorder = Recorder(model)
    for wrappers in recorder.model.wrappers.values():
        if "recorder" in wrappers:
            mine = wrappers.pop("recorder")
            rest = dict(wrappers)
            wrappers.clear()
            wrappers.update({"recorder": mine, **rest})
    return recorder


def twice(model):
    """A clone of a model that runs each full call again as a shallow one, with its own feature, and compares."""
    differences = []

    def again(control):
        if control is None:
            return None
        return {name: [one if one is None else one.clone() for one in features] for name, features in control.items()}

    def see(executor, x, timesteps, context, y, control, options, **kwargs):
        kept: list[torch.Tensor] = []
        copied = again(control)
        full = executor(x, timesteps, context, y, control, {**options, KEPT: kept}, **kwargs)
        shallow = executor(x, timesteps, context, y, copied, {**options, DEEP: kept[0]}, **kwargs)
        differences.append(float((full - shallow).abs().max()))
        return full

    model = model.clone()
    model.wrappers[WrappersMP.DIFFUSION_MODEL] = {"twice": [see], **model.wrappers[WrappersMP.DIFFUSION_MODEL]}
    return model, differences


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("branch", [0, 2, 5])
def test_a_shallow_step_with_the_feature_of_the_same_step_is_the_full_step(form, branch):
    """Bit for bit, so the shallow pass does in its blocks all that the host does there."""
    model, positive, negative = FORMS[form](tiny_model(), *texts())
    model, differences = twice(deepcache(model, branch=branch))
    sample(model, positive, negative)
    assert differences == [0.0] * 3


def test_sdxl_too():
    model, differences = twice(deepcache(tiny_sdxl(), branch=4))
    sample(model, *texts())
    assert differences == [0.0] * 3


@pytest.mark.parametrize("form", FORMS)
def test_an_interval_of_one_changes_nothing(form):
    to = FORMS[form](tiny_model(), *texts())
    assert torch.equal(sample(deepcache(to[0], interval=1), *to[1:]), sample(*to))


@pytest.mark.parametrize("form", FORMS)
def test_shallow_steps_change_the_picture_and_the_model_that_came_in_stays(form):
    model, positive, negative = FORMS[form](tiny_model(), *texts())
    before = sample(model, positive, negative, steps=5)
    recorder = recorded(deepcache(model))
    other = sample(recorder.model, positive, negative, steps=5)
    assert recorder.shallow == [False, True, True, False, True]
    assert not torch.equal(other, before) and other.isfinite().all()
    assert torch.equal(sample(model, positive, negative, steps=5), before)


def test_prompts_one_by_one_or_in_a_batch(monkeypatch):
    """The host splits a batch that does not fit the memory, and each prompt finds its own feature."""
    model = deepcache(tiny_model())
    together = recorded(model)
    expected = sample(together.model, *texts(), steps=5, batch=2)
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: 2**62)
    alone = recorded(model)
    assert_close(sample(alone.model, *texts(), steps=5, batch=2), expected, rtol=1e-4, atol=1e-4)
    assert together.calls == [(is_shallow, 4) for is_shallow in (False, True, True, False, True)]
    assert alone.calls == [(is_shallow, 2) for is_shallow in (False, True, True, False, True) for _ in range(2)]


def test_prompts_for_areas_and_for_parts_of_the_run():
    """Areas have other sizes. A prompt that begins in a shallow step makes that step's call full, once."""
    (text, options), negative = conditioning(1)[0], conditioning(2)
    area, late = {**options, "area": (4, 4, 0, 0)}, {**options, "start_percent": 0.3}
    recorder = recorded(deepcache(tiny_model(), interval=4))
    positive = [[text, options], [text * 0.5, area], [text * 2, late]]
    assert sample(recorder.model, positive, negative, steps=8).isfinite().all()
    full, shallow = [(False, 2)] * 2, [(True, 2)] * 2  # each step: the picture's prompts, then the area's
    begins = [(False, 3), (True, 2)]
    assert recorder.calls == [*full, *shallow, *shallow, *begins, (False, 3), (False, 2), *[(True, 3), (True, 2)] * 3]


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("heun", [False, True, True, True, True, False, False, True]),
        ("dpmpp_2m", [False, True, True, False, True]),
    ],
)
def test_a_step_is_a_noise_level(sampler, expected):
    """Heun evaluates a level twice: as the end of one step and as the start of the next, except the first and last."""
    recorder = recorded(deepcache(tiny_model()))
    assert sample(recorder.model, *texts(), steps=5, sampler=sampler).isfinite().all()
    assert recorder.shallow[: len(expected)] == expected


def test_only_a_part_of_the_run():
    recorder = recorded(deepcache(tiny_model(), steps=StepRange(0.3, 0.7)))
    sample(recorder.model, *texts(), steps=10)
    first = recorder.shallow.index(True)
    assert first >= 3 and not any(recorder.shallow[8:]) and sum(recorder.shallow) >= 2


def test_nothing_outlives_a_run_also_if_it_fails():
    recorder = recorded(deepcache(tiny_model()))
    sample(recorder.model, *texts())

    def fail(*_):
        raise InterruptedError

    broken = recorder.model.clone()
    broken.set_model_output_block_patch(fail)
    with pytest.raises(InterruptedError):
        sample(broken, *texts())
    gc.collect()
    assert len(recorder.runs) == 4 and not any(run() for run in recorder.runs)
    assert KEY not in recorder.model.model_options["transformer_options"]


def test_a_second_run_begins_with_a_full_step():
    recorder = recorded(deepcache(tiny_model()))
    first, again = (sample(recorder.model, *texts(), steps=4) for _ in range(2))
    assert torch.equal(first, again) and recorder.shallow == [False, True, True, False] * 2


def test_clones_with_other_settings_do_not_meet():
    base = tiny_model()
    expected = [sample(deepcache(base, branch=branch), *texts(), steps=4) for branch in (0, 3)]
    models = [deepcache(base, branch=branch) for branch in (0, 3)]
    assert all(map(torch.equal, [sample(model, *texts(), steps=4) for model in models], expected))
    assert not torch.equal(*expected)


def test_a_compiled_model_takes_two_graphs_without_a_break():
    level = {"num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}
    model = tiny_model(**level, transformer_depth_middle=0)
    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = lambda func, *args, **kwargs: attention_pytorch(*args, **kwargs)
    model = deepcache(model)
    compiled = model.clone()
    torch._dynamo.reset()
    counters.clear()
    set_torch_compile_wrapper(compiled, backend="eager")
    with torch.inference_mode():
        assert_close(sample(compiled, *texts(), steps=7), sample(model, *texts(), steps=7), rtol=1e-4, atol=1e-4)
    assert (counters["stats"]["unique_graphs"], counters["graph_break"].total()) == (2, 0)
    torch._dynamo.reset()


def test_what_it_cannot_work_on_is_refused():
    model = tiny_model()
    with pytest.raises(InvalidInputError, match="this UNet has 6; set it to 5"):
        deepcache(model, branch=6)
    with pytest.raises(PatchConflictError, match="DeepCache already"):
        deepcache(deepcache(model))
    transformer = TINY["SD3.5"].model()
    with pytest.raises(UnsupportedModeError, match="needs a UNet"):
        deepcache(transformer)


def test_what_needs_every_step_refuses_it():
    with pytest.raises(PatchConflictError, match="from before Apply DeepCache"):
        check_restoring_model(deepcache(tiny_model()))
    check_restoring_model(deepcache(tiny_model(), interval=1))
