"""RepControlNet on the host's model patcher: Eq. 6 in weights and beside them, the adapter, and nothing left behind."""

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.weight_adapter.lora import LoRAAdapter
from fpga.fpga_core.errors import (
    BaseModelError,
    CheckpointKeyError,
    CheckpointShapeError,
    PatchConflictError,
    UnsupportedModeError,
)
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.fpga_core.patching.repcontrolnet.carried import applied_branches
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.repcontrolnet.live import attach_branch
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.repcontrolnet.branch import BranchHeader, RepControlNet
from fpga.fpga_core.repcontrolnet.folding import fold_weight
from random_branches import random_branch
from tiny_models import conditioning, sample, tiny_model

WHOLE = StepRange()
LAYER = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def branch(model):
    return random_branch(model.model.diffusion_model)


@pytest.fixture
def conds():
    return conditioning(1), conditioning(2)


@pytest.fixture
def picture():
    return torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))


def hand_folded(model, *terms):
    """A second model whose weights are computed by hand: terms are functions of (name, weight) applied in turn."""
    other = tiny_model()
    with torch.no_grad():
        for name, parameter in other.model.diffusion_model.named_parameters():
            for term in terms:
                parameter.copy_(term(name, parameter))
    return other


def fold_term(branch, alpha, beta):
    def fold(name, weight):
        return fold_weight(weight, branch.weights[name], alpha=alpha, beta=beta) if name in branch.weights else weight

    return fold


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.7, 1.3), (1.0, 0.0)])
def test_fold_equals_weights_computed_by_hand(model, branch, conds, alpha, beta):
    folded = fold_branch(model, branch, alpha=alpha, beta=beta)
    expected = sample(hand_folded(model, fold_term(branch, alpha, beta)), *conds)
    assert relative_error(sample(folded, *conds), expected) <= 1e-6


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.7, 1.3)])
def test_the_hosts_patches_give_eq_6_bit_for_bit(model, branch, alpha, beta):
    before = {name: parameter.clone() for name, parameter in model.model.diffusion_model.named_parameters()}
    folded = fold_branch(model, branch, alpha=alpha, beta=beta)
    comfy.model_management.load_models_gpu([folded])
    loaded = dict(folded.model.diffusion_model.named_parameters())
    assert branch.weights
    for name, copy in branch.weights.items():
        assert torch.equal(loaded[name], fold_weight(before[name], copy, alpha=alpha, beta=beta)), name


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.7, 1.3)])
def test_live_equals_folded_over_a_run(model, branch, conds, alpha, beta):
    folded = sample(fold_branch(model, branch, alpha=alpha, beta=beta), *conds, steps=8)
    live = sample(attach_branch(model, branch, alpha=alpha, beta=beta), *conds, steps=8)
    assert relative_error(live, folded) <= 1e-5
    assert relative_error(folded, sample(model, *conds, steps=8)) > 0.05


def test_every_layer_of_the_unet_is_folded(model, branch):
    """The branch misses no layer: folding with alpha 0 and beta 0 leaves only norms, whose output is then all biases of
    norms."""
    zeroed = fold_branch(model, branch, alpha=0.0, beta=0.0)
    comfy.model_management.load_models_gpu([zeroed])
    left = [n for n, p in zeroed.model.diffusion_model.named_parameters() if p.abs().max() > 0]
    modules = dict(zeroed.model.diffusion_model.named_modules())
    assert left and all("Norm" in type(modules[name.rpartition(".")[0]]).__name__ for name in left)


@pytest.mark.parametrize("form", ["folded", "live", "live_range", "adapter_only"])
def test_base_is_bit_identical_afterwards(model, branch, conds, picture, form):
    before = sample(model, *conds)
    mode = BranchMode.LIVE if form == "live_range" else BranchMode(form)
    steps = StepRange(0.2, 0.6) if form == "live_range" else WHOLE
    applied = apply_repcontrolnet(
        model, *conds, branch=branch, image=picture, settings=RepControlNetSettings(mode=mode, steps=steps)
    )
    controlled = sample(applied.model, applied.positive, applied.negative)
    assert relative_error(controlled, before) > 0.001
    assert torch.equal(sample(model, *conds), before)
    assert torch.equal(sample(applied.model, applied.positive, applied.negative), controlled)


class Interrupted(BaseException):
    """Stands for the host's interrupt, which is raised between steps."""


@pytest.mark.parametrize("mode", [BranchMode.FOLDED, BranchMode.LIVE])
@pytest.mark.parametrize("error", [RuntimeError, Interrupted, comfy.model_management.OOM_EXCEPTION])
def test_an_error_in_the_middle_leaves_nothing_behind(model, branch, conds, picture, mode, error):
    before = sample(model, *conds)
    applied = apply_repcontrolnet(
        model, *conds, branch=branch, image=picture, settings=RepControlNetSettings(mode=mode)
    )
    broken = applied.model.clone()

    def fail(extra):
        raise error

    broken.set_model_input_block_patch(lambda h, options: fail(options) if float(options["sigmas"][0]) < 5 else h)
    with pytest.raises(error):
        sample(broken, applied.positive, applied.negative)
    assert torch.equal(sample(model, *conds), before)


def lora_patch(model, seed=4):
    shape = model.model.diffusion_model.get_parameter(LAYER).shape
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(shape[0], 4, generator=generator), torch.randn(4, shape[1], generator=generator)
    patch = LoRAAdapter(set(), (up, down, 4.0, None, None, None))
    return {f"diffusion_model.{LAYER}": patch}, up @ down


@pytest.mark.parametrize("lora_first", [True, False])
def test_lora_before_and_after_the_fold(model, branch, conds, lora_first):
    alpha, beta, strength = 0.8, 1.2, 0.5
    patches, delta = lora_patch(model)
    patched = model.clone()
    if lora_first:
        patched.add_patches(patches, strength)
        patched = fold_branch(patched, branch, alpha=alpha, beta=beta)
    else:
        patched = fold_branch(patched, branch, alpha=alpha, beta=beta)
        patched.add_patches(patches, strength)
    terms = [lambda n, w: w + strength * delta if n == LAYER else w, fold_term(branch, alpha, beta)]
    expected = sample(hand_folded(model, *(terms if lora_first else terms[::-1])), *conds)
    assert relative_error(sample(patched, *conds), expected) <= 1e-5
    other_order = sample(hand_folded(model, *(terms[::-1] if lora_first else terms)), *conds)
    assert relative_error(other_order, expected) > 1e-4, "the two orders must differ, or this test cannot fail"


def test_two_branches_fold_in_order(model, branch, conds):
    second = random_branch(model.model.diffusion_model, seed=12)
    patched = fold_branch(fold_branch(model, branch, alpha=0.9, beta=1.0), second, alpha=1.1, beta=0.5)
    expected = sample(hand_folded(model, fold_term(branch, 0.9, 1.0), fold_term(second, 1.1, 0.5)), *conds)
    assert relative_error(sample(patched, *conds), expected) <= 1e-5
    assert [record.alpha for record in applied_branches(patched)] == [0.9, 1.1]


@pytest.mark.parametrize("first", [fold_branch, attach_branch])
@pytest.mark.parametrize("second", [fold_branch, attach_branch])
def test_the_same_branch_twice_is_refused(model, branch, first, second):
    with pytest.raises(PatchConflictError, match="already carries"):
        second(first(model, branch), branch)
    assert applied_branches(model) == ()


def test_live_beside_fold_of_another(model, branch, conds):
    second = random_branch(model.model.diffusion_model, seed=12)
    both = attach_branch(fold_branch(model, branch), second, alpha=1.0, beta=0.5)
    expected = sample(fold_branch(fold_branch(model, branch), second, alpha=1.0, beta=0.5), *conds)
    assert relative_error(sample(both, *conds), expected) <= 1e-5


def test_live_range_acts_inside_the_range_only(model, branch, conds):
    seen = {}

    def run(patched):
        outputs = []
        patched = patched.clone()
        patched.set_model_sampler_post_cfg_function(lambda args: outputs.append(args["denoised"]) or args["denoised"])
        sample(patched, *conds, steps=6, cfg=1.0)
        return outputs

    seen["base"], seen["range"] = run(model), run(attach_branch(model, branch, steps=StepRange(0.4, 1.0)))
    equal = [torch.equal(a, b) for a, b in zip(seen["base"], seen["range"], strict=True)]
    assert equal[:2] == [True, True] and not any(equal[3:])


def test_auto_chooses_and_says_so(model, branch, conds, picture):
    folded = apply_repcontrolnet(model, *conds, branch=branch, image=picture)
    live = apply_repcontrolnet(
        model, *conds, branch=branch, image=picture, settings=RepControlNetSettings(steps=StepRange(0.0, 0.5))
    )
    assert "folded" in folded.note and applied_branches(folded.model)[0].form == "folded"
    assert "live" in live.note and applied_branches(live.model)[0].form == "live"


def test_folded_with_a_range_is_an_error_that_says_what_to_do(model, branch, conds, picture):
    with pytest.raises(UnsupportedModeError, match="choose mode 'live'"):
        apply_repcontrolnet(
            model,
            *conds,
            branch=branch,
            image=picture,
            settings=RepControlNetSettings(mode=BranchMode.FOLDED, steps=StepRange(0.0, 0.5)),
        )


def without(branch, *names, extra=None, **header):
    weights = {key: value for key, value in branch.weights.items() if key not in names}
    return RepControlNet(
        branch.name, BranchHeader(**{**vars(branch.header), **header}), weights | (extra or {}), branch.hint_encoder
    )


@pytest.mark.parametrize("apply", [fold_branch, attach_branch])
def test_branches_that_do_not_fit_are_refused_before_anything_is_patched(model, branch, apply):
    other_width = random_branch(tiny_model(model_channels=64).model.diffusion_model)
    other_base = random_branch(tiny_model(context_dim=32).model.diffusion_model)
    cases = [
        (without(branch, LAYER), CheckpointKeyError, LAYER),
        (
            without(branch, extra={"input_blocks.99.0.weight": torch.zeros(3)}),
            CheckpointKeyError,
            "input_blocks.99.0.weight",
        ),
        (without(branch, extra={LAYER: torch.zeros(3, 64)}), CheckpointShapeError, LAYER),
        (other_width, CheckpointShapeError, "channels"),
        (other_base, BaseModelError, "unet-32"),
    ]
    for bad, error, words in cases:
        with pytest.raises(error, match=words):
            apply(model, bad)
    assert not model.patches and applied_branches(model) == ()


def test_an_inpainting_model_takes_the_branch_of_its_plain_sibling(branch, conds):
    """Nine channels instead of four: the mask and the masked picture pass the copy by."""
    inpainting = tiny_model(in_channels=9)
    inpainting.model.set_inpaint()
    by_hand = tiny_model(in_channels=9)
    by_hand.model.set_inpaint()
    with torch.no_grad():
        for name, parameter in by_hand.model.diffusion_model.named_parameters():
            if name in branch.weights:
                part = parameter[:, :4] if name == "input_blocks.0.0.weight" else parameter
                part.add_(branch.weights[name])
    expected = sample(by_hand, *conds)
    assert relative_error(sample(fold_branch(inpainting, branch), *conds), expected) <= 1e-6
    assert relative_error(sample(attach_branch(inpainting, branch), *conds), expected) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_live_and_folded_agree_to_its_rounding(branch, conds, dtype):
    """The figures are in docs/repcontrolnet.md; the bound here is a few times what rounding alone does to the base
    model."""
    half = tiny_model(dtype=dtype)
    reference = sample(fold_branch(tiny_model(), branch), *conds)
    folded = relative_error(sample(fold_branch(half, branch), *conds), reference)
    live = relative_error(sample(attach_branch(half, branch), *conds), reference)
    rounding = relative_error(sample(half, *conds), sample(tiny_model(), *conds))
    assert folded <= 4 * rounding and live <= 4 * rounding


def test_low_vram_folds_at_each_cast(model, branch, conds):
    """With no room for weights the host casts and patches layer by layer: the same numbers."""
    expected = sample(fold_branch(model, branch, alpha=0.8, beta=1.1), *conds)
    folded = fold_branch(tiny_model(), branch, alpha=0.8, beta=1.1)
    folded.load(comfy.model_management.get_torch_device(), lowvram_model_memory=1)
    assert folded.model.model_lowvram
    context, timestep = conds[0][0][0], torch.tensor([500.0])
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    low = folded.model.diffusion_model(x, timestep, context)
    folded.detach()
    whole = hand_folded(model, fold_term(branch, 0.8, 1.1)).model.diffusion_model(x, timestep, context)
    assert relative_error(low, whole) <= 1e-5
    assert relative_error(sample(folded, *conds), expected) <= 1e-6
