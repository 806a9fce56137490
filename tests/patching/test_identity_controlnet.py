"""Identities inside a ControlNet against Eq. 1 as hooks on the plain one, and against ComfyUI's own InstantID route."""

from dataclasses import replace

import comfy.controlnet
import pytest
import torch
from eq1_reference import both, cell_means, eq1_on, relative_error, softmax_attention
from fpga.fpga_core.errors import BaseModelError, InvalidInputError, UnsupportedModeError
from fpga.fpga_core.identity.recipes import AdapterKind
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.conditioning import EncodedCast
from fpga.fpga_core.patching.cast.controlnet import apply_cast_controlnet
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.shapes import Extent
from tiny_controlnets import tiny_controlnet
from tiny_identities import cast, member, tiny_adapter
from tiny_models import TINY_SDXL_UNET, conditioning, sample, tiny_model, tiny_sdxl

import nodes

LEFT, RIGHT = (0.0, 0.1, 0.45, 0.8), (0.55, 0.0, 1.0, 1.0)
DUO = cast(member(1, LEFT), member(2, RIGHT, strength=0.7))
IMAGE = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def control_net():
    return tiny_controlnet()


@pytest.fixture(scope="module")
def texts():
    return conditioning(1), conditioning(2)


def plain(positive, negative, control_net, strength=1.0, start=0.0, end=1.0):
    """ComfyUI's own node."""
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        positive, negative, control_net, IMAGE, strength, start, end
    )


@pytest.mark.parametrize("has_own_projections", [True, False], ids=["own", "shared"])
@pytest.mark.parametrize(
    "size, batch, people",
    [
        ((16, 16), 1, DUO),
        ((17, 13), 2, cast(*DUO.members, member(3, (0.3, 0.3, 0.7, 0.6)))),
        ((32, 24), 1, cast(member(1))),
    ],
    ids=["two", "three that overlap, odd size, batch", "one in the whole, larger picture"],
)
def test_whole_runs_equal_the_formula(model, control_net, texts, has_own_projections, size, batch, people):
    people = replace(people, extent=Extent(*size))
    adapter = tiny_adapter(model if has_own_projections else None)
    with eq1_on(control_net.control_model, both(*texts, adapter, people, Extent(*size))):
        expected = sample(model, *plain(*texts, control_net, 0.8), steps=2, size=size, batch=batch)
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=people, image=IMAGE, strength=0.8)
    actual = sample(model, *conditionings, steps=2, size=size, batch=batch)
    without = sample(model, *plain(*texts, control_net, 0.8), steps=2, size=size, batch=batch)
    assert relative_error(without, expected) > 2e-3  # the identities matter
    assert relative_error(actual, expected) < 1e-4


def test_in_the_controlnet_and_in_the_model_at_once(model, control_net, texts):
    inside, beside, others = tiny_adapter(model), tiny_adapter(seed=5), cast(member(7, RIGHT))
    with (
        eq1_on(control_net.control_model, both(*texts, inside, DUO, Extent(16, 16))),
        eq1_on(model.model.diffusion_model, both(*texts, beside, others, Extent(16, 16))),
    ):
        expected = sample(model, *plain(*texts, control_net), steps=2)
    controlled = apply_cast_controlnet(*texts, control_net, adapter=inside, cast=DUO, image=IMAGE)
    for applied in (
        apply_cast(model, *controlled, adapter=beside, cast=others),
        (lambda m, p, n: (m, *apply_cast_controlnet(p, n, control_net, adapter=inside, cast=DUO, image=IMAGE)))(
            *apply_cast(model, *texts, adapter=beside, cast=others)
        ),
    ):
        assert relative_error(sample(*applied, steps=2), expected) < 1e-4


def test_chains_with_other_controlnets(model, control_net, texts):
    """Two casts in two ControlNets, and a plain one between them."""
    other, first, second = tiny_controlnet(seed=21), tiny_adapter(model), tiny_adapter(seed=5)
    solo, extent = cast(member(7, RIGHT)), Extent(16, 16)
    with (
        eq1_on(control_net.control_model, both(*texts, first, DUO, extent)),
        eq1_on(other.control_model, both(*texts, second, solo, extent)),
    ):
        chained = plain(*plain(*texts, control_net), other)
        expected = sample(model, *plain(*chained, tiny_controlnet(seed=22)), steps=2)
    chained = apply_cast_controlnet(*texts, control_net, adapter=first, cast=DUO, image=IMAGE)
    chained = plain(*chained, tiny_controlnet(seed=22))
    chained = apply_cast_controlnet(*chained, other, adapter=second, cast=solo, image=IMAGE)
    assert relative_error(sample(model, *chained, steps=2), expected) < 1e-4


@pytest.mark.parametrize("start, end", [(0.0, 0.3), (0.2, 1.0)])
def test_acts_between_start_and_end(model, control_net, texts, start, end):
    adapter, steps = tiny_adapter(), StepRange(start, end)
    with eq1_on(control_net.control_model, both(*texts, adapter, DUO, Extent(16, 16))):
        expected = sample(model, *plain(*texts, control_net, start=start, end=end), steps=4)
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=DUO, image=IMAGE, steps=steps)
    assert relative_error(sample(model, *conditionings, steps=4), expected) < 1e-4


def test_masked_conditionings_and_texts_without_the_cast(model, control_net, texts):
    positive, negative = texts
    masked = conditioning(3)
    masked[0][1]["mask"] = torch.linspace(0, 1, 20).repeat(20, 1)[None]
    adapter = tiny_adapter()
    with eq1_on(control_net.control_model, both(masked, negative, adapter, DUO, Extent(16, 16))):
        expected = sample(model, *plain(positive + masked, negative, control_net), steps=2)
    without, _ = plain(positive, negative, control_net)
    masked, negative = apply_cast_controlnet(masked, negative, control_net, adapter=adapter, cast=DUO, image=IMAGE)
    assert relative_error(sample(model, without + masked, negative, steps=2), expected) < 1e-4


def test_half_precision(texts):
    model, control_net = tiny_model(dtype=torch.bfloat16), tiny_controlnet()
    control_net.control_model.to(torch.bfloat16).dtype = torch.bfloat16
    adapter = tiny_adapter(model)
    with eq1_on(control_net.control_model, both(*texts, adapter, DUO, Extent(16, 16))):
        expected = sample(model, *plain(*texts, control_net), steps=1)
    actual = sample(model, *apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=DUO, image=IMAGE), steps=1)
    assert relative_error(actual, expected) < 3e-2


# InstantID: the tokens stand in the text's place


@pytest.fixture(scope="module")
def instantid():
    """A tiny SDXL, its ControlNet, and an adapter of InstantID's kind."""
    model = tiny_sdxl()
    control_net = tiny_controlnet(config=TINY_SDXL_UNET, num_heads=-1)
    return model, control_net, replace(tiny_adapter(model), kind=AdapterKind.INSTANTID)


def test_instantid_equals_the_hosts_own_route(instantid, texts):
    """ComfyUI's `cross_attn_controlnet`, which InstantID's own nodes use: one person in the whole picture."""
    model, control_net, adapter = instantid
    someone = member(1)
    swapped = []
    for text, tokens in zip(texts, (adapter.tokens, adapter.null_tokens), strict=True):
        swapped.append([[text[0][0], {**text[0][1], "cross_attn_controlnet": tokens(someone.identity)}]])
    expected = sample(model, *plain(*swapped, control_net), steps=2)
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=cast(someone), image=IMAGE)
    assert relative_error(sample(model, *conditionings, steps=2), expected) < 1e-5
    assert relative_error(sample(model, *plain(*texts, control_net), steps=2), expected) > 2e-3


def test_instantid_with_regions_is_nobody_outside_of_them(instantid, texts):
    model, control_net, adapter = instantid
    people = cast(member(1, LEFT), member(2, (0.3, 0.0, 1.0, 1.0), strength=3.0))
    nobody = adapter.null_tokens(people.members[0].identity)[0]
    weights = people.rasterise(Extent(16, 16)) * torch.tensor([1.0, 3.0])[:, None, None]
    weights = weights / weights.sum(0).clamp(min=1)

    def in_the_texts_place(module, args, kwargs, output):
        x, context = args[0], kwargs["context"]
        grid = kwargs["transformer_options"]["activations_shape"][-2:]
        shares = cell_means(weights, *grid).flatten(1)
        result = []
        for q, text in zip(module.to_q(x), context, strict=True):
            is_positive = torch.equal(text, texts[0][0][0][0])
            make = adapter.tokens if is_positive else adapter.null_tokens
            tokens = [(1 - shares.sum(0), nobody)]
            tokens += [(s, make(m.identity)[0]) for s, m in zip(shares, people.members, strict=True)]
            terms = [s[:, None] * softmax_attention(q, module.to_k(t), module.to_v(t), module.heads) for s, t in tokens]
            result.append(module.to_out(sum(terms).float()))
        return torch.stack(result)

    hooks = [
        module.register_forward_hook(in_the_texts_place, with_kwargs=True)
        for name, module in control_net.control_model.named_modules()
        if name.endswith("attn2")
    ]
    expected = sample(model, *plain(*texts, control_net), steps=2)
    for hook in hooks:
        hook.remove()
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=people, image=IMAGE)
    assert relative_error(sample(model, *conditionings, steps=2), expected) < 1e-4


# What changes nothing


def test_nobody_acting_is_the_plain_controlnet(model, control_net, texts):
    adapter = tiny_adapter(model)
    expected = sample(model, *plain(*texts, control_net), steps=2)
    for nobody in (cast(), cast(member(1, LEFT, strength=0.0))):
        conditionings = apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=nobody, image=IMAGE)
        assert torch.equal(sample(model, *conditionings, steps=2), expected)
    off = apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=DUO, image=IMAGE, strength=0.0)
    assert off == texts


def test_order_and_duplicates_change_no_bit(model, control_net, texts):
    adapter = tiny_adapter(model)
    crowd = [member(1, LEFT), member(2, (0.3, 0.0, 1.0, 1.0), strength=0.7), member(3, (0.0, 0.3, 1.0, 1.0))]
    expected = None
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 2, 0]):
        people = cast(*(crowd[i] for i in order))
        actual = sample(
            model, *apply_cast_controlnet(*texts, control_net, adapter=adapter, cast=people, image=IMAGE), steps=2
        )
        expected = actual if expected is None else expected
        assert torch.equal(actual, expected)


def test_the_loaded_controlnet_and_the_conditioning_stay_as_they_came(model, texts):
    control_net = tiny_controlnet()
    before = {name: weight.clone() for name, weight in control_net.control_model.state_dict().items()}
    expected = sample(model, *plain(*texts, control_net), steps=2)
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=tiny_adapter(model), cast=DUO, image=IMAGE)
    first = sample(model, *conditionings, steps=2)
    assert torch.equal(sample(model, *plain(*texts, control_net), steps=2), expected)
    assert torch.equal(sample(model, *conditionings, steps=2), first)
    assert type(control_net) is comfy.controlnet.ControlNet
    assert control_net.extra_conds == ["y"]
    assert all(torch.equal(weight, before[name]) for name, weight in control_net.control_model.state_dict().items())
    assert all(not module._forward_hooks for module in control_net.control_model.modules())
    assert all("control" not in entry[1] and "model_conds" not in entry[1] for text in texts for entry in text)


def test_a_run_leaves_nothing_on_the_control(model, control_net, texts):
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=tiny_adapter(model), cast=DUO, image=IMAGE)
    control = conditionings[0][0][1]["control"]
    sample(model, *conditionings, steps=1)
    assert (control.control_model._run._projected, control.control_model._run._calls) == ({}, [])
    assert control.cond_hint is None


def test_copies_carry_the_cast(model, control_net, texts):
    """The host copies controls for chains, and deep-copies them for further GPUs."""
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=tiny_adapter(model), cast=DUO, image=IMAGE)
    expected = sample(model, *conditionings, steps=2)
    control = conditionings[0][0][1]["control"]
    deep = control.deepclone_multigpu(torch.device("cpu"), autoregister=True)
    assert control.multigpu_clones == {torch.device("cpu"): deep}
    assert deep.control_model.model is not control.control_model.model
    control.multigpu_clones.clear()
    for other in (control.copy(), deep):
        swapped = [[[text, {**options, "control": other}] for text, options in side] for side in conditionings]
        assert torch.equal(sample(model, *swapped, steps=2), expected)


# What is refused


def test_areas_are_refused(model, control_net, texts):
    positive, negative = apply_cast_controlnet(*texts, control_net, adapter=tiny_adapter(model), cast=DUO, image=IMAGE)
    positive[0][1]["area"] = (8, 8, 4, 4)
    with pytest.raises(UnsupportedModeError, match="use a mask instead of the area"):
        sample(model, positive, negative, steps=1)


def test_an_adapter_for_another_controlnet_is_refused(texts):
    with pytest.raises(BaseModelError, match="3 of 3 cross-attention layers; input block 1.0 is 64 in the ControlNet"):
        apply_cast_controlnet(
            *texts, tiny_controlnet(model_channels=64), adapter=tiny_adapter(tiny_model()), cast=DUO, image=IMAGE
        )
    with pytest.raises(BaseModelError, match="shares the ControlNet's projections, but these read 96"):
        apply_cast_controlnet(*texts, tiny_controlnet(context_dim=96), adapter=tiny_adapter(), cast=DUO, image=IMAGE)


def test_other_kinds_of_control_are_refused(texts, control_net):
    class Wrapped(comfy.controlnet.ControlNet):
        pass

    wrapped = Wrapped(None)
    wrapped.control_model = control_net.control_model
    lora = comfy.controlnet.ControlLora({})
    for control, name in ((wrapped, "Wrapped"), (lora, "ControlLora"), (comfy.controlnet.ControlBase(), "ControlBase")):
        with pytest.raises(UnsupportedModeError, match=f"is a {name} .* Load ControlNet Model"):
            apply_cast_controlnet(*texts, control, adapter=tiny_adapter(), cast=DUO, image=IMAGE)


def test_an_image_that_is_no_picture_is_refused(texts, control_net):
    with pytest.raises(InvalidInputError, match="connect an IMAGE"):
        apply_cast_controlnet(*texts, control_net, adapter=tiny_adapter(), cast=DUO, image=torch.zeros(64, 64))


def test_regions_are_drawn_once_a_run(model, control_net, texts, monkeypatch):
    drawn, weights = [], EncodedCast.weights

    def counted(self, extent):
        drawn.append(extent)
        return weights(self, extent)

    monkeypatch.setattr(EncodedCast, "weights", counted)
    conditionings = apply_cast_controlnet(*texts, control_net, adapter=tiny_adapter(), cast=DUO, image=IMAGE)
    sample(model, *conditionings, steps=3)
    assert drawn == [Extent(16, 16)]
    sample(model, *conditionings, steps=3)
    assert drawn == [Extent(16, 16)] * 2
