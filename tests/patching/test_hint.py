"""The Adapter as a control: where it is added, how often it is computed, and how it chains."""

from dataclasses import replace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.t2i_adapter.adapter
import comfy.utils
import pytest
import torch
from fpga.fpga_core.errors import BaseModelError, InvalidInputError
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.repcontrolnet.hint_encoder import build_hint_encoder
from random_branches import random_branch
from tiny_models import conditioning, sample, tiny_model, tiny_sdxl
from unet_configs import TINY_UNET

HINT_ALONE = RepControlNetSettings(mode=BranchMode.ADAPTER_ONLY)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


LEVELS = {
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0, 0],
}
"""Two residual blocks to a level, as in SD1.5: the T2I-Adapter puts three features to a level."""


@pytest.fixture
def model():
    return tiny_model(**LEVELS)


@pytest.fixture
def branch(model):
    return random_branch(model.model.diffusion_model)


@pytest.fixture
def conds():
    return conditioning(1), conditioning(2)


def pictures(num=1, width=128, height=128, seed=3):
    return torch.rand(num, height, width, 3, generator=torch.Generator().manual_seed(seed))


def with_feature(model, feature, strength=1.0, active=lambda sigma: True):
    """Reference: a clone whose first convolution's output gets the feature added, by a patch behind input block 0."""
    patched = model.clone()

    def add(h, options):
        if options["block"] != ("input", 0) or not active(float(options["sigmas"][0])):
            return h
        return (
            h
            + strength
            * feature.repeat_interleave(1, 0).repeat(-(-h.shape[0] // feature.shape[0]), 1, 1, 1)[: h.shape[0]]
        )

    patched.set_model_input_block_patch(add)
    return patched


def encoded(branch, image):
    with torch.no_grad():
        return build_hint_encoder(branch.hint_encoder)(image.movedim(-1, 1))


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_the_feature_is_added_after_the_first_convolution(model, branch, conds, strength):
    image = pictures()
    applied = apply_repcontrolnet(
        model, *conds, branch=branch, image=image, settings=replace(HINT_ALONE, strength=strength)
    )
    expected = sample(with_feature(model, encoded(branch, image), strength), *conds)
    assert relative_error(sample(applied.model, applied.positive, applied.negative), expected) <= 1e-6
    assert relative_error(sample(model, *conds), expected) > 0.01


def test_strength_zero_adds_nothing(model, branch, conds):
    applied = apply_repcontrolnet(
        model, *conds, branch=branch, image=pictures(), settings=replace(HINT_ALONE, strength=0)
    )
    assert torch.equal(sample(applied.model, applied.positive, applied.negative), sample(model, *conds))


def test_range_follows_the_schedule(model, branch, conds):
    image = pictures()
    applied = apply_repcontrolnet(
        model, *conds, branch=branch, image=image, settings=replace(HINT_ALONE, steps=StepRange(0.3, 0.8))
    )
    sampling = model.model.model_sampling
    first, last = sampling.percent_to_sigma(0.3), sampling.percent_to_sigma(0.8)
    reference = with_feature(model, encoded(branch, image), active=lambda sigma: last <= sigma <= first)
    found = sample(applied.model, applied.positive, applied.negative, steps=8)
    assert relative_error(found, sample(reference, *conds, steps=8)) <= 1e-6


def test_the_picture_is_encoded_once_a_run(model, branch, conds):
    applied = apply_repcontrolnet(model, *conds, branch=branch, image=pictures(), settings=HINT_ALONE)
    control = applied.positive[0][1]["control"]
    calls = []
    control.encoder.model.register_forward_hook(lambda *_: calls.append(1))
    sample(applied.model, applied.positive, applied.negative, steps=6)
    assert len(calls) == 1
    assert control.features == {}, "the feature is freed when the run ends"
    sample(applied.model, applied.positive, applied.negative, steps=2)
    assert len(calls) == 2


def test_positive_and_negative_run_in_one_batch(model, branch, conds):
    applied = apply_repcontrolnet(model, *conds, branch=branch, image=pictures(), settings=HINT_ALONE)
    assert applied.positive[0][1]["control"] is applied.negative[0][1]["control"]
    batches = []
    counted = applied.model.clone()
    counted.set_model_input_block_patch(lambda h, options: batches.append(h.shape[0]) or h)
    sample(counted, applied.positive, applied.negative, steps=1)
    assert set(batches) == {2}


@pytest.mark.parametrize(
    ("size", "batch", "num_pictures"), [((16, 16), 3, 1), ((16, 16), 4, 2), ((13, 21), 2, 1), ((9, 8), 1, 1)]
)
def test_any_size_and_batch(model, branch, conds, size, batch, num_pictures):
    image = pictures(num_pictures, width=100, height=140)
    applied = apply_repcontrolnet(model, *conds, branch=branch, image=image, settings=HINT_ALONE)
    found = sample(applied.model, applied.positive, applied.negative, size=size, batch=batch)
    resized = comfy.utils.common_upscale(image.movedim(-1, 1), size[0] * 8, size[1] * 8, "bilinear", "center").movedim(
        1, -1
    )
    feature = encoded(branch, resized)
    per_latent = feature.repeat_interleave(1, 0).repeat(-(-batch // num_pictures), 1, 1, 1)[:batch]
    expected = sample(with_feature(model, per_latent), *conds, size=size, batch=batch)
    assert found.shape == (batch, 4, size[1], size[0])
    assert relative_error(found, expected) <= 1e-5


def t2i_adapter(seed=6):
    """ComfyUI's own T2I-Adapter, sized for the tiny UNet's levels, with 3 features to a level."""
    torch.manual_seed(seed)
    width = TINY_UNET["model_channels"]
    network = comfy.t2i_adapter.adapter.Adapter(
        cin=64 * 3, channels=[width, width * 2, width * 2], nums_rb=1, ksize=1, sk=True, use_conv=False, xl=False
    )
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact", device=torch.device("cpu"))


def controlnet(seed=7):
    config = {
        key: value
        for key, value in (TINY_UNET | LEVELS).items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    network = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, operations=comfy.ops.disable_weight_init, dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 30) ** 0.5)
    return comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))


def apply_other(control, positive, negative, image):
    import nodes

    return nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, image, 0.7, 0.0, 1.0)


@pytest.mark.parametrize("other", [t2i_adapter, controlnet])
@pytest.mark.parametrize("ours_first", [True, False])
def test_chains_with_other_controls_in_any_order(model, branch, conds, other, ours_first):
    image, control = pictures(), other()
    alone = sample(model, *apply_other(control, *conds, image))
    if ours_first:
        ours = apply_repcontrolnet(model, *conds, branch=branch, image=image, settings=HINT_ALONE)
        found = sample(model, *apply_other(control, ours.positive, ours.negative, image))
    else:
        ours = apply_repcontrolnet(
            model, *apply_other(control, *conds, image), branch=branch, image=image, settings=HINT_ALONE
        )
        found = sample(model, ours.positive, ours.negative)
    expected = sample(with_feature(model, encoded(branch, image)), *apply_other(control, *conds, image))
    assert relative_error(found, expected) <= 1e-5
    assert relative_error(found, alone) > 0.005
    assert relative_error(alone, sample(model, *conds)) > 0.005


@pytest.mark.parametrize("ours_first", [True, False])
def test_sdxl_chains_with_its_t2i_adapter(conds, ours_first):
    """SDXL's T2I-Adapter gives 10 features for 9 input blocks: a list of another length would shift one of the two."""
    model, image = tiny_sdxl(), pictures()
    branch = random_branch(model.model.diffusion_model)
    torch.manual_seed(6)
    network = comfy.t2i_adapter.adapter.Adapter(
        cin=256 * 3, channels=[32, 64, 128, 128], nums_rb=1, ksize=1, sk=True, use_conv=False, xl=True
    )
    control = comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact", device=torch.device("cpu"))
    if ours_first:
        ours = apply_repcontrolnet(model, *conds, branch=branch, image=image, settings=HINT_ALONE)
        found = sample(model, *apply_other(control, ours.positive, ours.negative, image))
    else:
        ours = apply_repcontrolnet(
            model, *apply_other(control, *conds, image), branch=branch, image=image, settings=HINT_ALONE
        )
        found = sample(model, ours.positive, ours.negative)
    alone = sample(model, *apply_other(control, *conds, image))
    expected = sample(with_feature(model, encoded(branch, image)), *apply_other(control, *conds, image))
    assert relative_error(found, expected) <= 1e-5
    assert relative_error(found, alone) > 0.005 and relative_error(alone, sample(model, *conds)) > 1e-4


def test_folded_beside_an_ordinary_controlnet(model, branch, conds):
    image = pictures()
    ours = apply_repcontrolnet(
        model,
        *apply_other(controlnet(), *conds, image),
        branch=branch,
        image=image,
        settings=RepControlNetSettings(mode=BranchMode.FOLDED, alpha=0.9, beta=1.1),
    )
    found = sample(ours.model, ours.positive, ours.negative)
    by_hand = tiny_model(**LEVELS)
    with torch.no_grad():
        for name, parameter in by_hand.model.diffusion_model.named_parameters():
            if name in branch.weights:
                parameter.copy_(0.9 * parameter + 1.1 * branch.weights[name])
    expected = sample(with_feature(by_hand, encoded(branch, image)), *apply_other(controlnet(), *conds, image))
    assert relative_error(found, expected) <= 1e-5


def test_area_conditioning_gets_the_feature_of_its_area(model, branch, conds):
    positive = [[conds[0][0][0], {**conds[0][0][1], "area": (8, 16, 4, 0)}], conds[0][0]]
    applied = apply_repcontrolnet(model, positive, conds[1], branch=branch, image=pictures(), settings=HINT_ALONE)
    found = sample(applied.model, applied.positive, applied.negative)
    assert torch.isfinite(found).all()
    assert relative_error(found, sample(model, positive, conds[1])) > 0.005


def test_an_adapter_of_another_width_is_refused(model, conds):
    wide = random_branch(tiny_model(context_dim=32).model.diffusion_model)
    with pytest.raises(BaseModelError, match="unet-32"):
        apply_repcontrolnet(model, *conds, branch=wide, image=pictures(), settings=HINT_ALONE)


@pytest.mark.parametrize("shape", [(128, 128, 3), (1, 128, 128), (1, 128, 128, 2), (0, 128, 128, 3)])
def test_a_condition_that_is_no_picture_is_refused(model, branch, conds, shape):
    with pytest.raises(InvalidInputError, match="connect an IMAGE"):
        apply_repcontrolnet(model, *conds, branch=branch, image=torch.zeros(shape), settings=HINT_ALONE)


def test_alpha_channel_is_dropped(model, branch, conds):
    image = pictures()
    rgba = torch.cat([image, torch.zeros_like(image[..., :1])], dim=-1)
    outputs = []
    for picture in (image, rgba):
        applied = apply_repcontrolnet(model, *conds, branch=branch, image=picture, settings=HINT_ALONE)
        outputs.append(sample(applied.model, applied.positive, applied.negative))
    assert torch.equal(*outputs)
