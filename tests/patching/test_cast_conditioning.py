"""A cast on its way through ComfyUI's conditioning: drawn at the run's size, cropped and batched by the host itself."""

import comfy.samplers
import torch
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.conditioning import (
    EncodedCast,
    PendingCast,
    resolve_casts,
    rows_key,
    weights_key,
)
from fpga.fpga_core.patching.conditioning import add_cond
from fpga.fpga_core.shapes import Extent
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

DUO = cast(member(1, (0.0, 0.1, 0.45, 0.8)), member(2, (0.55, 0.0, 1.0, 1.0), strength=0.5))


def carrying(tokens, text=None):
    """An entry as the guider holds it."""
    ((_, options),) = add_cond(text or conditioning(1), "key", PendingCast(tokens))
    return options


def tokens_of(people, seed=0):
    tokens = torch.randn(len(people.members), 4, 8, generator=torch.Generator().manual_seed(seed))
    return EncodedCast(tokens=tokens, cast=people, strength=0.8)


@st.composite
def sizes_and_areas(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (height, width), (draw(st.integers(1, height)), draw(st.integers(1, width)), top, left)


@settings(deadline=None)
@given(sizes_and_areas(), st.integers(1, 3))
def test_regions_are_drawn_at_the_runs_size_and_cropped_with_every_area(size_and_area, batch):
    """Regions have no size of their own: whatever canvas the cast was made on, the crop is that of the run's latent."""
    (height, width), area = size_and_area
    conds, _ = resolve_casts({"positive": [carrying(tokens_of(DUO))]}, "key", Extent(width, height))
    entry = {**conds["positive"][0], "area": area, "uuid": 0}
    x = torch.zeros(batch, 4, height, width)
    cropped = comfy.samplers.get_area_and_mult(entry, x, torch.zeros(1))
    strengths = torch.tensor([0.8, 0.4])[:, None, None]
    rows, columns = slice(area[2], area[2] + area[0]), slice(area[3], area[3] + area[1])
    expected = (DUO.rasterise(Extent(width, height)) * strengths)[:, rows, columns]
    weights = cropped.conditioning[weights_key("key")].cond
    assert torch.equal(weights, expected.expand(batch, -1, -1, -1))
    assert weights.shape[2:] == cropped.input_x.shape[2:]


def test_rows_number_the_table_of_all_tokens():
    first, second = tokens_of(DUO), tokens_of(cast(member(3), *DUO.members), seed=1)
    entries = [carrying(first), carrying(second), carrying(first)]
    plain = {"model_conds": {}, "uuid": 1}
    conds, parts = resolve_casts({"positive": [*entries, plain], "negative": []}, "key", Extent(8, 8))
    rows = [entry["model_conds"][rows_key("key")].cond.tolist() for entry in conds["positive"][:3]]
    assert rows == [[[0, 1]], [[2, 3, 4]], [[0, 1]]]
    assert parts == (first, second)
    assert conds["positive"][3] is plain
    assert conds["negative"] == []
    assert all(set(entry["model_conds"]) == {"key"} for entry in entries)  # what came in is as it was


def test_positive_and_negative_share_a_batch_and_other_casts_do_not():
    pair = {"positive": [carrying(tokens_of(DUO))], "negative": [carrying(tokens_of(DUO, seed=1))]}
    conds, _ = resolve_casts(pair, "key", Extent(8, 8))
    trio, _ = resolve_casts({"positive": [carrying(tokens_of(cast(member(3), *DUO.members)))]}, "key", Extent(8, 8))
    other, _ = resolve_casts({"positive": [carrying(tokens_of(DUO))]}, "another key", Extent(8, 8))

    def concatenable(a, b):
        processed = [
            {name: cond.process_cond(batch_size=1, area=None) for name, cond in entry["model_conds"].items()}
            for entry in (a, b)
        ]
        return comfy.samplers.cond_equal_size(*processed)

    positive, negative = conds["positive"][0], conds["negative"][0]
    assert concatenable(positive, negative)
    assert not concatenable(positive, trio["positive"][0])
    assert not concatenable(positive, {"model_conds": {}})
    assert set(other["positive"][0]["model_conds"]) == {"key"}


@settings(deadline=None, max_examples=12)
@given(sizes_and_areas())
def test_runs_with_areas_of_every_size_finish(size_and_area):
    (height, width), area = size_and_area
    assume(
        max(area[:2]) > 4
    )  # torch refuses to normalise a group of one value, which the model's lowest level then has
    model, positive, negative = tiny_model(), conditioning(1), conditioning(2)
    positive[0][1]["area"] = area
    people = cast(*DUO.members, canvas=Extent(width, height))
    applied = apply_cast(model, positive, negative, adapter=tiny_adapter(model), cast=people)
    assert sample(*applied, steps=1, size=(width, height)).isfinite().all()
