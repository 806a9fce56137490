"""Regional prompts by attention, in their smallest form: the positive's rows are doubled, and averaged afterwards.

With the same prompt for every region nothing changes, so together with a cast the result must be the cast alone.
"""

import pytest
import torch
from eq1_reference import relative_error
from fpga.fpga_core.errors import PatchConflictError, ShapeMismatchError
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.record import record_attention
from fpga.fpga_core.patching.restoration.faces import check_model_is_plain
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

LEFT, RIGHT = (0.0, 0.1, 0.45, 0.8), (0.55, 0.0, 1.0, 1.0)


def doubled(q, context, value, extra):
    sides = extra["cond_or_uncond"]
    rows = [
        (a.repeat(1 if s else 2, 1, 1), b.repeat(1 if s else 2, 1, 1))
        for s, a, b in zip(sides, q.chunk(len(sides)), context.chunk(len(sides)), strict=True)
    ]
    queries, contexts = (torch.cat(part) for part in zip(*rows, strict=True))
    return queries, contexts, contexts


def averaged(out, extra):
    rows = iter(out.split(1))
    return torch.cat([next(rows) if side else (next(rows) + next(rows)) / 2 for side in extra["cond_or_uncond"]])


def prompted_by_regions(model):
    model = model.clone()
    model.set_model_attn2_patch(doubled)
    model.set_model_attn2_output_patch(averaged)
    return model


@torch.inference_mode()
def test_regional_prompts_that_all_say_the_same_change_nothing_beside_a_cast():
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    regional = prompted_by_regions(model)
    assert relative_error(sample(regional, positive, negative), sample(model, positive, negative)) < 1e-6
    adapter, people = tiny_adapter(model), cast(member(1, LEFT), member(2, RIGHT))
    alone = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people))
    beside = sample(*apply_cast(regional, positive, negative, adapter=adapter, cast=people))
    assert relative_error(beside, alone) < 1e-5


@pytest.mark.parametrize("has_own_projections", [True, False])
@torch.inference_mode()
def test_the_cast_acts_in_a_batch_and_is_recorded_beside_them(has_own_projections):
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    adapter, people = tiny_adapter(model if has_own_projections else None), cast(member(1, LEFT), member(2, RIGHT))
    alone = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=people))
    patched, *conditionings = apply_cast(prompted_by_regions(model), positive, negative, adapter=adapter, cast=people)
    recorded, record = record_attention(patched, 0, 1)
    beside = sample(recorded, *conditionings)
    assert relative_error(beside, alone) < 1e-5
    assert [shown.number for shown in record.maps_of(beside)] == [1, 2]


@torch.inference_mode()
def test_a_patch_that_keeps_the_rows_changes_no_bit():
    """As hypernetworks do: the ordinary way is taken."""
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    applied = apply_cast(model, positive, negative, adapter=tiny_adapter(model), cast=cast(member(1, LEFT)))
    beside = applied[0].clone()
    beside.set_model_attn2_patch(lambda n, context, value, extra: (n, context, value))
    assert torch.equal(sample(beside, *applied[1:]), sample(*applied))


@torch.inference_mode()
def test_rows_that_stay_multiplied_are_named():
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    applied = apply_cast(model, positive, negative, adapter=tiny_adapter(model), cast=cast(member(1, LEFT)))
    applied[0].set_model_attn2_patch(doubled)
    with pytest.raises(ShapeMismatchError, match="is only half active on this model: connect both of its outputs"):
        sample(*applied, steps=1)


def masked_attention(mask):
    """An attention of another pack that holds a mask, as IPAdapter's does."""

    class MaskedAttention:
        def __init__(self):
            self.kwargs = [{"mask": mask}]

        def __call__(self, q, k, v, extra):
            return q

    return MaskedAttention()


def test_restoration_refuses_patches_of_the_whole_picture_by_name():
    model, masked, unmasked = tiny_model(), tiny_model(), tiny_model()
    check_model_is_plain(model)
    with pytest.raises(PatchConflictError, match="'doubled' of .*test_regional_prompts. Connect the model from before"):
        check_model_is_plain(prompted_by_regions(model))
    masked.set_model_attn2_replace(masked_attention(torch.ones(1, 8, 8)), "input", 1)
    with pytest.raises(PatchConflictError, match="MaskedAttention' of .*test_regional_prompts"):
        check_model_is_plain(masked)
    unmasked.set_model_attn2_replace(masked_attention(None), "input", 1)  # a style, for example, acts in crops too
    check_model_is_plain(unmasked)
    with_hypernetwork = model.clone()
    with_hypernetwork.set_model_attn2_patch(type("hypernetwork_patch", (), {})())
    check_model_is_plain(with_hypernetwork)
