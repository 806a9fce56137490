"""Recorded attention: the right layer, step, people and pictures, against Eq. 1 computed beside it."""

import pytest
import torch
from eq1_reference import NAME, cell_means, softmax_attention
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.record import record_attention
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.shapes import Extent
from fpga.nodes.apply_cast import ShowAttention
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

LEFT, RIGHT = (0.0, 0.1, 0.45, 0.8), (0.55, 0.0, 1.0, 1.0)
DUO = cast(member(1, LEFT), member(2, RIGHT))
TALL, WIDE = (cast(*DUO.members, canvas=Extent(*size)) for size in ((12, 16), (16, 12)))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return conditioning(1), conditioning(2)


KINDS = {"input": 0, "middle": 1, "output": 2}


def projections_of_calls(model, layer, run):
    """Queries, keys and values (of the text) of one cross attention in each call of a run."""
    named = [(NAME.search(name), module) for name, module in model.model.diffusion_model.named_modules()]
    named = sorted(((KINDS[n[1]], int(n[2] or 0), int(n[3]), m) for n, m in named if n), key=lambda item: item[:3])
    attention, calls = named[layer][3], []
    hooks = [
        attention.to_q.register_forward_hook(lambda module, inputs, output: calls.append({"q": output})),
        attention.to_k.register_forward_hook(lambda module, inputs, output: calls[-1].setdefault("k", output)),
        attention.to_v.register_forward_hook(lambda module, inputs, output: calls[-1].setdefault("v", output)),
    ]
    run()
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize("record_first", [True, False])
@pytest.mark.parametrize("layer, step, grid", [(0, 0, (16, 12)), (2, 1, (4, 3)), (6, 2, (16, 12))])
def test_records_what_each_identity_added_there_and_then(model, texts, layer, step, grid, record_first):
    adapter = tiny_adapter(model)
    if record_first:
        recorded, record = record_attention(model, layer, step)
        applied = apply_cast(recorded, *texts, adapter=adapter, cast=TALL)
    else:
        patched, *conditionings = apply_cast(model, *texts, adapter=adapter, cast=TALL)
        recorded, record = record_attention(patched, layer, step)
        applied = recorded, *conditionings
    latents = []
    calls = projections_of_calls(model, layer, lambda: latents.append(sample(*applied, size=(12, 16), batch=2)))
    call = calls[step]
    slot = sorted(adapter.projections, key=lambda slot: ({"input": 0, "middle": 1, "output": 2}[slot[0]], slot[1:]))[
        layer
    ]
    key, value = adapter.projections[slot]
    maps = record.maps_of(latents[0])
    assert [(shown.picture, shown.number) for shown in maps] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [shown.name for shown in maps[:2]] == ["person 1", "person 2"]
    for shown in maps:
        entry = 2 + shown.picture  # the batch is negative, then positive; two pictures each
        person = DUO.members[shown.number - 1]
        tokens = adapter.tokens(person.identity)[0].double()
        region = cell_means(person.region.rasterise(Extent(12, 16))[None], *grid).flatten()
        q = call["q"][entry]
        term = region[:, None] * softmax_attention(q, tokens @ key.double().T, tokens @ value.double().T, 8)
        text = softmax_attention(q, call["k"][entry], call["v"][entry], 8)
        expected = (term.norm(dim=-1) / text.norm(dim=-1)).reshape(grid)
        torch.testing.assert_close(shown.activity.double(), expected, rtol=1e-4, atol=1e-6)
        assert (shown.activity.flatten()[region == 0] == 0).all()


def test_recording_changes_no_bit(model, texts):
    applied = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    recorded, _ = record_attention(applied[0], 3, 1)
    assert torch.equal(sample(recorded, *applied[1:]), sample(*applied))


def test_two_records_on_one_model_and_a_new_run_each_time(model, texts):
    patched, *conditionings = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    recorded, coarse = record_attention(patched, 2, 0)
    recorded, fine = record_attention(recorded, 0, 0)
    for size in ((16, 16), (24, 24)):
        latent = sample(recorded, *conditionings, size=size)
        shown, small = fine.maps_of(latent), coarse.maps_of(latent)
        assert shown[0].activity.shape == (size[1], size[0])
        assert small[0].activity.shape == (size[1] // 4, size[0] // 4)
        assert len(shown) == len(small) == 2


def test_a_second_pass_leaves_the_maps_of_the_first(model, texts):
    """Each latent shows its own run, whichever was sampled last; a latent that another node has changed, the last."""
    patched, *conditionings = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    recorded, record = record_attention(patched, 0, 0)
    first = sample(recorded, *conditionings, steps=1)
    alone = [shown.activity for shown in record.maps_of(first)]
    second = sample(recorded, *conditionings, steps=2, latent=first, denoise=0.5)
    again = [shown.activity for shown in record.maps_of(first.to(torch.float32).clone())]
    after = [shown.activity for shown in record.maps_of(second)]
    assert len(alone) == len(again) == len(after) == 2
    assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(alone, after, strict=True))
    latest = [shown.activity for shown in record.maps_of(second + 1)]
    assert all(torch.equal(a, b) for a, b in zip(latest, after, strict=True))


def test_what_cannot_be_recorded_is_said(model, texts):
    with pytest.raises(InvalidInputError, match="layer 7 does not exist; this model has layers 0 to 6"):
        record_attention(model, 7, 0)
    patched, *conditionings = apply_cast(
        model, *texts, adapter=tiny_adapter(model), cast=DUO, steps=StepRange(0.0, 0.1)
    )
    late, record = record_attention(patched, 0, 2)
    with pytest.raises(InvalidInputError, match="no identity was recorded in layer 0 at step 2"):
        record.maps_of(torch.zeros(1, 4, 16, 16))
    latent = sample(late, *conditionings, steps=3)
    with pytest.raises(InvalidInputError, match="check that Apply Cast acts in that step"):
        record.maps_of(latent)
    with pytest.raises(InvalidInputError, match=r"asks for step 2, but this run has 2 \(0 to 1\)"):
        sample(late, *conditionings, steps=2)


def test_the_node_draws_each_person_where_they_acted(model, texts):
    patched, *conditionings = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=WIDE)
    recorded, record = record_attention(patched, 0, 0)
    latent = sample(recorded, *conditionings, size=(16, 12))
    (image,) = ShowAttention.execute(record, {"samples": latent}).args
    assert image.shape[0] == 2
    assert image.shape[2] == 512
    background = image[0, 383, 300]  # in nobody's region, above the footer
    for shown, (column, row) in zip(image, [(0.2, 0.5), (0.8, 0.5)], strict=True):
        mine = shown[int(row * 384), int(column * 512)]
        theirs = shown[int(row * 384), int((1 - column) * 512)]
        assert torch.equal(theirs, background)
        assert (mine - background).abs().sum() > 0.1
