"""Identities on a real (tiny) model against Eq. 1 as hooks on the untouched one, through whole sampling runs."""

from dataclasses import replace

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from eq1_reference import both, carried, eq1_on, relative_error
from fpga.fpga_core.identity.cast import Cast
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.layer_emphasis import WEAKEST, LayerEmphasis
from fpga.fpga_core.identity.recipes import AdapterKind
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.shapes import Extent
from random_branches import random_branch
from tiny_identities import cast, member, person, tiny_adapter
from tiny_models import conditioning, sample, tiny_model, tiny_sdxl

LEFT, RIGHT = (0.0, 0.1, 0.45, 0.8), (0.55, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("has_own_projections", [True, False], ids=["own", "shared"])
@pytest.mark.parametrize(
    "size, batch, people",
    [
        ((16, 16), 1, cast(member(1, LEFT), member(2, RIGHT))),
        ((17, 13), 2, cast(member(1, LEFT), member(2, RIGHT, strength=0.6), member(3, (0.3, 0.3, 0.7, 0.6)))),
        ((9, 22), 1, cast(member(1), member(2, (0.1, 0.1, 0.2, 0.3)))),
    ],
    ids=["two", "three that overlap, odd size, batch", "whole picture and a spot"],
)
def test_whole_runs_equal_the_formula(has_own_projections, size, batch, people):
    people = replace(people, extent=Extent(*size))
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    adapter = tiny_adapter(model if has_own_projections else None)
    with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, people, Extent(*size), strength=0.8)):
        expected = sample(model, positive, negative, steps=2, size=size, batch=batch)
    actual = sample(
        *apply_cast(model, positive, negative, adapter=adapter, cast=people, strength=0.8),
        steps=2,
        size=size,
        batch=batch,
    )
    untouched = sample(model, positive, negative, steps=2, size=size, batch=batch)
    assert relative_error(untouched, expected) > 1e-2  # the identities matter
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("has_own_projections", [True, False], ids=["own", "shared"])
def test_sdxl_with_several_transformer_blocks_in_a_block(has_own_projections):
    model, positive, negative, people = tiny_sdxl(), conditioning(1), conditioning(2), cast(member(1, LEFT), member(2))
    adapter = tiny_adapter(model if has_own_projections else None)
    with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, people, Extent(16, 16))):
        expected = sample(model, positive, negative, steps=2)
    actual = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people), steps=2)
    assert relative_error(sample(model, positive, negative, steps=2), expected) > 1e-2
    assert relative_error(actual, expected) < 1e-4


def test_the_lora_of_an_adapter_changes_the_weights_as_published():
    model, positive, negative, people = tiny_model(), conditioning(1), conditioning(2), cast(member(1, LEFT))
    adapter = tiny_adapter(model, lora_rank=2)
    changed = tiny_model()
    with torch.no_grad():
        for path, low_rank in adapter.lora.items():
            changed.model.diffusion_model.get_submodule(path).weight += low_rank.up @ low_rank.down
    with eq1_on(changed.model.diffusion_model, both(positive, negative, adapter, people, Extent(16, 16))):
        expected = sample(changed, positive, negative, steps=2)
    assert (
        relative_error(sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people), steps=2), expected)
        < 1e-4
    )


@pytest.mark.parametrize("is_folded_first", [True, False], ids=["fold, then cast", "cast, then fold"])
def test_other_peoples_adapters_on_a_folded_model(is_folded_first):
    """The paper's section 4.4: own projections and a LoRA of the adapter's, and a fold that scales what came before."""
    model, texts, people = tiny_model(), (conditioning(1), conditioning(2)), cast(member(1, LEFT), member(2, RIGHT))
    adapter, branch = tiny_adapter(model, lora_rank=2), random_branch(model.model.diffusion_model)
    alpha, beta = 0.7, 0.4
    by_hand = tiny_model()
    with torch.no_grad():
        for name, weight in by_hand.model.diffusion_model.named_parameters():
            low_rank = adapter.lora.get(name.removesuffix(".weight"))
            delta = torch.zeros_like(weight) if low_rank is None else low_rank.up @ low_rank.down
            if name in branch.weights:
                weight.copy_(alpha * weight + beta * branch.weights[name] + delta * (1 if is_folded_first else alpha))
    with eq1_on(by_hand.model.diffusion_model, both(*texts, adapter, people, Extent(16, 16))):
        expected = sample(by_hand, *texts, steps=2)
    if is_folded_first:
        applied = apply_cast(fold_branch(model, branch, alpha=alpha, beta=beta), *texts, adapter=adapter, cast=people)
    else:
        patched, *texts = apply_cast(model, *texts, adapter=adapter, cast=people)
        applied = fold_branch(patched, branch, alpha=alpha, beta=beta), *texts
    assert relative_error(sample(*applied, steps=2), expected) < 1e-4


def test_several_casts_of_one_adapter_carry_its_lora_once():
    """One cast for the first half of the steps and one for the second, say; loading the file again changes nothing."""
    model = tiny_model()
    adapter, again, other = (tiny_adapter(model, seed=seed, lora_rank=2) for seed in (0, 0, 1))
    once, positive, negative = apply_cast(
        model, conditioning(1), conditioning(2), adapter=adapter, cast=cast(member(1))
    )
    twice, *_ = apply_cast(once, positive, negative, adapter=again, cast=cast(member(2)))
    assert {key: len(patches) for key, patches in twice.patches.items()} == dict.fromkeys(once.patches, 1)
    both, *_ = apply_cast(once, positive, negative, adapter=other, cast=cast(member(2)))
    assert {key: len(patches) for key, patches in both.patches.items()} == dict.fromkeys(once.patches, 2)


@pytest.mark.parametrize("emphasis", list(LayerEmphasis))
def test_emphasis_scales_each_layers_term(emphasis):
    model, positive, negative, people = tiny_model(), conditioning(1), conditioning(2), cast(member(1, LEFT))
    adapter, rest = tiny_adapter(model), 1 - WEAKEST
    formula = {
        "uniform": lambda layer, last: 1.0,
        "early": lambda layer, last: WEAKEST + rest * (last - layer) / last,
        "late": lambda layer, last: WEAKEST + rest * layer / last,
        "middle": lambda layer, last: WEAKEST + rest * (1 - abs(2 * layer / last - 1)),
        "ends": lambda layer, last: WEAKEST + rest * abs(2 * layer / last - 1),
    }[emphasis.value]
    with eq1_on(
        model.model.diffusion_model,
        both(positive, negative, adapter, people, Extent(16, 16)),
        layer_scale=lambda layer, num_layers: formula(layer, num_layers - 1),
    ):
        expected = sample(model, positive, negative, steps=1)
    actual = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people, emphasis=emphasis), steps=1)
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("start, end", [(0.0, 0.5), (0.4, 1.0), (0.3, 0.7)])
def test_identities_act_only_between_start_and_end(start, end):
    model, positive, negative, people = tiny_model(), conditioning(1), conditioning(2), cast(member(1, LEFT))
    adapter, seen = tiny_adapter(), set()
    sampling = model.model.model_sampling

    def acts(sigma):
        seen.add(inside := sampling.percent_to_sigma(end) <= sigma <= sampling.percent_to_sigma(start))
        return inside

    with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, people, Extent(16, 16)), acts=acts):
        expected = sample(model, positive, negative, steps=5)
    assert seen == {True, False}
    actual = sample(
        *apply_cast(model, positive, negative, adapter=adapter, cast=people, steps=StepRange(start, end)), steps=5
    )
    assert relative_error(actual, expected) < 1e-4


AREAS = [(20, 32, 0, 0), (32, 12, 0, 20), (10, 14, 7, 5), (1, 9, 31, 23), (32, 31, 0, 1)]


@pytest.mark.parametrize("area", AREAS, ids=str)
def test_second_pass_at_twice_the_size_crops_regions_with_the_area(area):
    """Regions are given on a canvas of 16x16 latent cells; the run is 32x32, its positive confined to an area."""
    model, negative, people = tiny_model(), conditioning(2), cast(member(1, LEFT), member(2, RIGHT, strength=0.7))
    whole, confined = conditioning(1), conditioning(3)
    confined[0][1]["area"] = area
    confined[0][1]["strength"] = 1.0
    adapter, extent = tiny_adapter(model), Extent(32, 32)
    texts = [
        carried(whole, adapter, people, extent),
        carried(confined, adapter, people, extent, areas=[area]),
        carried(negative, adapter, people, extent, null=True, areas=[area]),
    ]
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(9))
    with eq1_on(model.model.diffusion_model, texts):
        expected = sample(model, whole + confined, negative, steps=1, latent=noise, denoise=0.6)
    patched, positive, cast_negative = apply_cast(model, whole + confined, negative, adapter=adapter, cast=people)
    actual = sample(patched, positive, cast_negative, steps=1, latent=noise, denoise=0.6)
    assert relative_error(actual, expected) < 1e-4


def test_one_application_serves_the_first_and_the_second_pass():
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    people, adapter = cast(member(1, LEFT), member(2, RIGHT)), tiny_adapter()
    applied = apply_cast(model, positive, negative, adapter=adapter, cast=people)
    for size in ((16, 16), (32, 32), (24, 24)):
        with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, people, Extent(*size))):
            expected = sample(model, positive, negative, steps=1, size=size)
        assert relative_error(sample(*applied, steps=1, size=size), expected) < 1e-4


def test_areas_in_percent_and_masks():
    model, negative = tiny_model(), conditioning(2)
    people = cast(member(1, LEFT), member(2, RIGHT), canvas=Extent(16, 24))
    masked, confined = conditioning(1), conditioning(3)
    masked[0][1]["mask"] = torch.linspace(0, 1, 20).repeat(20, 1)[None]
    masked[0][1]["set_area_to_bounds"] = False
    confined[0][1]["area"] = ("percentage", 0.5, 0.75, 0.25, 0.125)
    adapter, extent, area = tiny_adapter(model), Extent(16, 24), (12, 12, 6, 2)
    texts = [
        carried(masked, adapter, people, extent),
        carried(confined, adapter, people, extent, areas=[area]),
        carried(negative, adapter, people, extent, null=True, areas=[area]),
    ]
    with eq1_on(model.model.diffusion_model, texts):
        expected = sample(model, masked + confined, negative, steps=2, size=(16, 24))
    applied = apply_cast(model, masked + confined, negative, adapter=adapter, cast=people)
    assert relative_error(sample(*applied, steps=2, size=(16, 24)), expected) < 1e-4


def test_each_text_carries_its_own_cast():
    """Two applications in a row, for two texts combined afterwards: neither text meets the other's people."""
    model, first, second, negative = tiny_model(), conditioning(1), conditioning(3), conditioning(2)
    duo, trio = (
        cast(member(1, LEFT), member(2, RIGHT)),
        cast(member(4, LEFT), member(5, RIGHT), member(6, (0.4, 0.4, 0.6, 1))),
    )
    own, shared, extent = tiny_adapter(model), tiny_adapter(seed=3), Extent(16, 16)
    texts = [
        carried(first, own, duo, extent),
        carried(second, shared, trio, extent),
        carried(negative, own, duo, extent, null=True),
    ]
    with eq1_on(model.model.diffusion_model, texts):
        expected = sample(model, first + second, negative, steps=2)
    patched, first, negative = apply_cast(model, first, negative, adapter=own, cast=duo)
    patched, second, _ = apply_cast(patched, second, conditioning(2), adapter=shared, cast=trio)
    assert relative_error(sample(patched, first + second, negative, steps=2), expected) < 1e-4


def test_two_applications_on_one_text_add_up():
    model, positive, negative, extent = tiny_model(), conditioning(1), conditioning(2), Extent(16, 16)
    duo, solo, own, shared = (
        cast(member(1, LEFT), member(2, RIGHT)),
        cast(member(3)),
        tiny_adapter(model),
        tiny_adapter(seed=3),
    )
    texts = both(positive, negative, own, duo, extent) + both(positive, negative, shared, solo, extent)
    with eq1_on(model.model.diffusion_model, texts):
        expected = sample(model, positive, negative, steps=2)
    applied = apply_cast(*apply_cast(model, positive, negative, adapter=own, cast=duo), adapter=shared, cast=solo)
    assert relative_error(sample(*applied, steps=2), expected) < 1e-4


def test_texts_without_the_cast_stay_without_it():
    """The negative from before Apply Cast, and a second positive that joined after it."""
    model, positive, other, negative = tiny_model(), conditioning(1), conditioning(3), conditioning(2)
    people, adapter = cast(member(1, LEFT)), tiny_adapter(model)
    with eq1_on(model.model.diffusion_model, [carried(positive, adapter, people, Extent(16, 16))]):
        expected = sample(model, positive + other, negative, steps=2)
    patched, with_cast, _ = apply_cast(model, positive, negative, adapter=adapter, cast=people)
    assert relative_error(sample(patched, with_cast + other, negative, steps=2), expected) < 1e-4


def test_people_encoded_from_different_numbers_of_photos_share_a_cast():
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    adapter = replace(tiny_adapter(model), kind=AdapterKind.FACEID_PORTRAIT)
    photos = torch.cat([person(seed).embeddings[BUFFALO_L] for seed in range(3)])
    three = replace(member(1, LEFT), identity=Identity("three photos", {BUFFALO_L: photos}))
    people, extent = Cast((three, member(2, RIGHT)), Extent(64, 64)), Extent(16, 16)
    assert adapter.tokens(three.identity).shape[1] == 3 * adapter.tokens(person(2)).shape[1]
    texts = [
        carried(text, adapter, Cast((one,), extent), extent, null=null)
        for text, null in ((positive, False), (negative, True))
        for one in people.members
    ]
    with eq1_on(model.model.diffusion_model, texts):
        expected = sample(model, positive, negative, steps=2)
    actual = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people), steps=2)
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize(
    "mode, steps",
    [(BranchMode.FOLDED, StepRange()), (BranchMode.LIVE, StepRange()), (BranchMode.LIVE, StepRange(0.1, 1.0))],
    ids=["folded", "live", "live from the second step on"],
)
@pytest.mark.parametrize("cast_first", [False, True])
def test_shared_projections_carry_the_repcontrolnet(mode, steps, cast_first):
    """Folded into to_k and to_v, or live beside them, whichever node comes first."""
    model, positive, negative, people = tiny_model(), conditioning(1), conditioning(2), cast(member(1, LEFT))
    adapter, branch = tiny_adapter(), random_branch(model.model.diffusion_model, scale=1.0)
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))

    def control(*inputs):
        applied = apply_repcontrolnet(
            *inputs, branch=branch, image=image, settings=RepControlNetSettings(mode=mode, steps=steps)
        )
        return applied.model, applied.positive, applied.negative

    controlled = control(model, positive, negative)
    with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, people, Extent(16, 16))):
        expected = sample(*controlled, steps=4)
    if cast_first:
        actual = sample(*control(*apply_cast(model, positive, negative, adapter=adapter, cast=people)), steps=4)
    else:
        actual = sample(*apply_cast(*controlled, adapter=adapter, cast=people), steps=4)
    assert relative_error(sample(*controlled, steps=4), expected) > 5e-3
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_half_precision_models(dtype, tolerance):
    """The reference is the same half precision model with Eq. 1 in float64: what is measured is what the pack adds."""
    model, positive, negative = tiny_model(dtype=dtype), conditioning(1), conditioning(2)
    adapter, people = tiny_adapter(model), cast(member(1, LEFT), member(2, RIGHT))
    with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, people, Extent(16, 16))):
        expected = sample(model, positive, negative, steps=1)
    actual = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people), steps=1)
    assert actual.isfinite().all()
    assert relative_error(actual, expected) < tolerance


def test_guiders_with_three_conditionings():
    """`DualCFGGuider` names its conditionings positive, middle and negative."""
    model, first, second, negative = tiny_model(), conditioning(1), conditioning(3), conditioning(2)
    people, adapter, extent = cast(member(1, LEFT), member(2, RIGHT)), tiny_adapter(model), Extent(16, 16)

    def run(model, first, second, negative):
        guider = Guider_DualCFG(model)
        guider.set_conds(first, second, negative)
        guider.set_cfg(3.0, 2.0)
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.ksampler("euler"), sigmas)

    with eq1_on(model.model.diffusion_model, both(first, negative, adapter, people, extent)):
        expected = run(model, first, second, negative)
    patched, first, negative = apply_cast(model, first, negative, adapter=adapter, cast=people)
    assert relative_error(run(patched, first, second, negative), expected) < 1e-4
