"""Masked multi-identity attention, compared with Eq. 1 as loops, and its invariants."""

import math

import pytest
import torch
from fpga.fpga_core.errors import ShapeMismatchError
from fpga.fpga_core.identity import masked_attention
from fpga.fpga_core.identity.masked_attention import (
    ActingQueries,
    add_identities,
    identity_activity,
    identity_attention,
    replace_by_identities,
)
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st


def eq_1(o, q, keys, values, weights, num_heads):
    """`o + sum_i w_i softmax(q k_i^T / sqrt(d)) v_i`, one query, head and identity at a time, in float64."""
    result = o.double().clone()
    head_dim = q.shape[-1] // num_heads
    for b, n, h in ((b, n, h) for b in range(q.shape[0]) for n in range(q.shape[1]) for h in range(num_heads)):
        part = slice(h * head_dim, (h + 1) * head_dim)
        for i in range(keys.shape[1]):
            scores = [float(q[b, n, part].double() @ key[part].double()) / math.sqrt(head_dim) for key in keys[b, i]]
            powers = [math.exp(score - max(scores)) for score in scores]
            for power, value in zip(powers, values[b, i], strict=True):
                result[b, n, part] += float(weights[b, i, n]) * power / sum(powers) * value[part].double()
    return result


def random_case(seed=0, batch=2, queries=12, identities=3, tokens=4, heads=2, head_dim=8):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    dim = heads * head_dim
    o, q = normal(batch, queries, dim), 2 * normal(batch, queries, dim)
    keys, values = normal(batch, identities, tokens, dim), normal(batch, identities, tokens, dim)
    return o, q, keys, values, torch.rand(batch, identities, queries, generator=generator), heads


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    queries=st.integers(1, 9),
    identities=st.integers(1, 5),
    tokens=st.integers(1, 6),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 6),
)
def test_equals_the_formula_as_loops(seed, batch, queries, identities, tokens, heads, head_dim):
    o, q, keys, values, weights, heads = random_case(seed, batch, queries, identities, tokens, heads, head_dim)
    actual = add_identities(o, q, keys=keys, values=values, acting=ActingQueries(weights), num_heads=heads)
    torch.testing.assert_close(actual.double(), eq_1(o, q, keys, values, weights, heads), rtol=1e-5, atol=1e-5)


def grid_case(regions, grid, **options):
    """A case on a grid with regions drawn on a latent, (identities, height, width)."""
    o, q, keys, values, _, heads = random_case(queries=grid.num_cells, identities=len(regions), **options)
    return o, q, keys, values, ActingQueries.on_grid(regions[None].expand(len(q), -1, -1, -1), grid), heads


def box(height, width, top, left, bottom, right):
    region = torch.zeros(height, width)
    region[top:bottom, left:right] = 1
    return region


@pytest.mark.parametrize("latent, grid", [((8, 8), Extent(4, 4)), ((9, 7), Extent(4, 5)), ((5, 12), Extent(3, 2))])
def test_picked_queries_give_what_all_queries_give(latent, grid):
    regions = torch.stack([box(*latent, 0, 0, 2, 2), box(*latent, 3, 4, 5, 6)])
    o, q, keys, values, few, heads = grid_case(regions, grid)
    assert few.indices is not None
    assert 0 < len(few.indices) < grid.num_cells
    height, width = latent
    cells = torch.zeros(len(regions), grid.height, grid.width)
    for i in range(len(regions)):
        for y in range(grid.height):  # cell y covers the latent's rows that floor and ceiling give
            for x in range(grid.width):
                rows = slice(y * height // grid.height, math.ceil((y + 1) * height / grid.height))
                columns = slice(x * width // grid.width, math.ceil((x + 1) * width / grid.width))
                cells[i, y, x] = regions[i, rows, columns].mean()
    expected = eq_1(o, q, keys, values, cells.flatten(1)[None].expand(len(q), -1, -1), heads)
    actual = add_identities(o, q, keys=keys, values=values, acting=few, num_heads=heads)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_outside_its_region_an_identity_adds_exactly_nothing():
    regions = torch.stack([box(16, 16, 0, 0, 16, 9), box(16, 16, 2, 5, 9, 16)])  # over half: all are computed
    o, q, keys, values, acting, heads = grid_case(regions, Extent(16, 16))
    assert acting.indices is None
    for i, region in enumerate(regions):
        alone = ActingQueries(acting.weights[:, i : i + 1])
        term = identity_attention(
            q, keys=keys[:, i : i + 1], values=values[:, i : i + 1], weights=alone.weights, num_heads=heads
        )
        outside = region.flatten() == 0
        assert term[:, outside].abs().max() == 0
        assert (term[:, ~outside].abs().sum(-1) > 0).all()
    changed = add_identities(o, q, keys=keys, values=values, acting=acting, num_heads=heads) != o
    assert torch.equal(changed.any(-1).any(0).reshape(16, 16), regions.sum(0) > 0)


def test_where_few_queries_lie_in_a_region_the_others_are_bit_identical_to_the_text():
    regions = torch.stack([box(16, 16, 1, 1, 4, 5), box(16, 16, 10, 10, 12, 12)])
    o, q, keys, values, acting, heads = grid_case(regions, Extent(16, 16))
    output = add_identities(o, q, keys=keys, values=values, acting=acting, num_heads=heads)
    outside = regions.sum(0).flatten() == 0
    assert torch.equal(output[:, outside], o[:, outside])
    assert (output[:, ~outside] != o[:, ~outside]).any(-1).all()


def test_no_region_anywhere_returns_the_text_output():
    o, q, keys, values, acting, heads = grid_case(torch.zeros(2, 8, 8), Extent(8, 8))
    assert torch.equal(add_identities(o, q, keys=keys, values=values, acting=acting, num_heads=heads), o)


def test_a_region_of_ones_is_no_mask():
    o, q, keys, values, acting, heads = grid_case(torch.ones(1, 9, 7), Extent(4, 5))
    heads_first = [part.reshape(2, -1, heads, 8).transpose(1, 2) for part in (q, keys[:, 0], values[:, 0])]
    plain = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2).flatten(2)
    torch.testing.assert_close(
        add_identities(o, q, keys=keys, values=values, acting=acting, num_heads=heads), o + plain
    )
    bare = identity_attention(q, keys=keys, values=values, weights=torch.ones(2, 1, 20), num_heads=heads)
    assert torch.equal(add_identities(o, q, keys=keys, values=values, acting=acting, num_heads=heads), o + bare)


def test_order_of_identities_does_not_matter():
    o, q, keys, values, weights, heads = random_case()
    permuted = [2, 0, 1]
    there = add_identities(o, q, keys=keys, values=values, acting=ActingQueries(weights), num_heads=heads)
    back = add_identities(
        o,
        q,
        keys=keys[:, permuted],
        values=values[:, permuted],
        acting=ActingQueries(weights[:, permuted]),
        num_heads=heads,
    )
    torch.testing.assert_close(there, back, rtol=1e-6, atol=1e-6)


def test_an_identity_that_shares_its_region_with_itself_counts_once():
    o, q, keys, values, _, heads = random_case(identities=1)
    once = ActingQueries(torch.ones(2, 1, 12))
    halves = ActingQueries(torch.full((2, 2, 12), 0.5))
    doubled = add_identities(
        o, q, keys=keys.repeat(1, 2, 1, 1), values=values.repeat(1, 2, 1, 1), acting=halves, num_heads=heads
    )
    torch.testing.assert_close(
        doubled, add_identities(o, q, keys=keys, values=values, acting=once, num_heads=heads), rtol=1e-6, atol=1e-6
    )


def test_repeating_the_set_of_tokens_changes_nothing():
    """Identities of 1 and 5 photos can share a batch."""
    o, q, keys, values, weights, heads = random_case()
    once = add_identities(o, q, keys=keys, values=values, acting=ActingQueries(weights), num_heads=heads)
    thrice = add_identities(
        o,
        q,
        keys=keys.repeat(1, 1, 3, 1),
        values=values.repeat(1, 1, 3, 1),
        acting=ActingQueries(weights),
        num_heads=heads,
    )
    torch.testing.assert_close(once, thrice, rtol=1e-5, atol=1e-5)


def test_long_lists_of_queries_in_parts_are_the_same(monkeypatch):
    o, q, keys, values, weights, heads = random_case(queries=50)
    whole = add_identities(o, q, keys=keys, values=values, acting=ActingQueries(weights), num_heads=heads)
    monkeypatch.setattr(masked_attention, "MAX_SCORES", 7 * 2 * heads * 3 * 4)  # 7 queries at a time
    torch.testing.assert_close(
        add_identities(o, q, keys=keys, values=values, acting=ActingQueries(weights), num_heads=heads),
        whole,
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("edge", [4, 16], ids=["few queries", "all queries"])
def test_identities_in_the_texts_place(edge):
    regions = torch.stack([box(16, 16, 0, 0, edge, edge) * 0.75, 0.25 * box(16, 16, 2, 0, 4, 9)])
    o, q, keys, values, acting, heads = grid_case(regions, Extent(16, 16))
    assert (acting.indices is None) == (edge == 16)
    output = replace_by_identities(o, q, keys=keys, values=values, acting=acting, num_heads=heads)
    flat = regions.flatten(1).expand(2, -1, -1)
    expected = eq_1(o * (1 - flat.sum(1))[..., None], q, keys, values, flat, heads)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(output[:, flat[0].sum(0) == 0], o[:, flat[0].sum(0) == 0])
    full = flat[0].sum(0) == 1
    other_text = replace_by_identities(o + 7, q, keys=keys, values=values, acting=acting, num_heads=heads)
    assert torch.equal(output[:, full], other_text[:, full])


@pytest.mark.parametrize("edge", [4, 16], ids=["few queries", "all queries"])
def test_activity_is_the_length_of_each_identitys_term_over_the_texts(edge):
    regions = torch.stack([box(16, 16, 0, 0, edge, edge), 0.3 * box(16, 16, 2, 5, 9, 7)])
    o, q, keys, values, acting, heads = grid_case(regions, Extent(16, 16))
    assert (acting.indices is None) == (edge == 16)
    activity = identity_activity(o, q, keys=keys, values=values, acting=acting, num_heads=heads)
    nothing = torch.zeros_like(o)
    for i, region in enumerate(regions):
        term = eq_1(nothing, q, keys[:, [i]], values[:, [i]], region.flatten().expand(2, 1, -1), heads)
        expected = term.norm(dim=-1) / o.double().norm(dim=-1)
        torch.testing.assert_close(activity[:, i].double(), expected, rtol=1e-5, atol=1e-6)
        assert (activity[:, i, region.flatten() == 0] == 0).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_stays_near_the_formula_and_finite(dtype, tolerance):
    o, q, keys, values, weights, heads = random_case(head_dim=40)
    q = q * 3000
    scores = torch.einsum("bnc,bitc->bnit", q[..., :40], keys[..., :40])
    assert scores.abs().max() > 65504 > scores.abs().max() / 40**0.5  # float16 holds them scaled only
    o, q, keys, values = (part.to(dtype) for part in (o, q, keys, values))
    output = add_identities(o, q, keys=keys, values=values, acting=ActingQueries(weights.to(dtype)), num_heads=heads)
    assert output.dtype == dtype
    parts = (part.to(dtype).float() for part in (o, q, keys, values, weights))
    expected = eq_1(*parts, heads)
    assert (output.double() - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda q, k, v, w: (q, k[..., :-1], v[..., :-1], w), "another model"),
        (lambda q, k, v, w: (q, k[:1], v[:1], w), "need \\(2, identities"),
        (lambda q, k, v, w: (q, k, v, w[..., 1:]), "region weights"),
        (lambda q, k, v, w: (q, k, v, w[:, 1:]), "3 identities"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    _, q, keys, values, weights, heads = random_case()
    q, keys, values, weights = change(q, keys, values, weights)
    with pytest.raises(ShapeMismatchError, match=words):
        identity_attention(q, keys=keys, values=values, weights=weights, num_heads=heads)
