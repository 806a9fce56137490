"""Masked AdaIN and Mask Guided Face Fusion against their formulas, written out per channel with loops."""

import math

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.restoration.adain import VARIANCE_FLOOR, adain, masked_moments
from fpga.fpga_core.restoration.fusion import FusionSettings, GridMask, StyleSource, fuse, fuse_latent
from hypothesis import given
from hypothesis import strategies as st


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fused(restored, cached, weights, source, **strengths):
    """`fuse` with the style measured as the cache does."""
    mask = GridMask.of(weights)
    style = None if source is StyleSource.OFF else mask.moments(cached, source)
    return fuse(restored, cached, mask=mask, style=style, **strengths)


def reference_moments(features: list[float], mask: list[float]) -> tuple[float, float]:
    total = sum(mask)
    mean = sum(m * f for m, f in zip(mask, features, strict=True)) / total
    variance = sum(m * (f - mean) ** 2 for m, f in zip(mask, features, strict=True)) / total
    return mean, math.sqrt(variance + VARIANCE_FLOOR)


def reference_fusion(restored, cached, mask, style_weights):
    """(cells, channels) tensors; one number at a time."""
    out = torch.empty_like(restored)
    for channel in range(restored.shape[1]):
        mean, deviation = reference_moments(restored[:, channel].tolist(), mask.tolist())
        style_mean, style_deviation = reference_moments(cached[:, channel].tolist(), style_weights.tolist())
        for cell in range(restored.shape[0]):
            m = float(mask[cell])
            styled = (float(restored[cell, channel]) - mean) / deviation * style_deviation + style_mean
            out[cell, channel] = m * styled + (1 - m) * float(cached[cell, channel])
    return out


@pytest.mark.parametrize("source", [StyleSource.FACE, StyleSource.SURROUNDINGS])
def test_fusion_is_the_formula_cell_by_cell(source):
    restored, cached = random(2, 12, 3, seed=1), random(2, 12, 3, seed=2) * 3 + 1
    mask = torch.rand(2, 12, 1, generator=torch.Generator().manual_seed(3))
    result = fused(restored, cached, mask, source)
    for item in range(2):
        weights = mask[item, :, 0] if source is StyleSource.FACE else 1 - mask[item, :, 0]
        expected = reference_fusion(restored[item], cached[item], mask[item, :, 0], weights)
        torch.testing.assert_close(result[item], expected, atol=1e-5, rtol=1e-5)


def test_latent_fusion_is_the_same_formula():
    latent, cached = random(1, 4, 3, 5, seed=4), random(1, 4, 3, 5, seed=5)
    mask = torch.rand(1, 1, 3, 5, generator=torch.Generator().manual_seed(6))
    weights = mask.flatten()
    grid = GridMask.of(weights[None, :, None])
    result = fuse_latent(latent, cached, mask=grid, settings=FusionSettings(style_source=StyleSource.FACE))
    expected = reference_fusion(latent[0].flatten(1).T, cached[0].flatten(1).T, weights, weights)
    torch.testing.assert_close(result[0].flatten(1).T, expected, atol=1e-5, rtol=1e-5)


def test_adain_of_own_moments_changes_nothing():
    features, mask = random(1, 20, 4), torch.ones(1, 20, 1)
    own = masked_moments(features, mask)
    torch.testing.assert_close(adain(features, own, own), features, atol=1e-6, rtol=1e-6)


def test_the_face_receives_the_mean_and_deviation_of_the_style():
    restored, cached, mask = random(1, 400, 2), random(1, 400, 2, seed=1) * 5 - 7, torch.zeros(1, 400, 1)
    mask[:, :200] = 1
    result = fused(restored, cached, mask, StyleSource.SURROUNDINGS)
    inside, outside = result[0, :200], cached[0, 200:]
    torch.testing.assert_close(inside.mean(0), outside.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(inside.std(0, correction=0), outside.std(0, correction=0), atol=1e-3, rtol=1e-3)
    assert torch.equal(result[0, 200:], outside)


@pytest.mark.parametrize("num_cells", [0, 1])
@pytest.mark.parametrize("source", [StyleSource.FACE, StyleSource.SURROUNDINGS])
def test_masks_of_no_or_one_cell_give_no_style_and_no_nan(num_cells, source):
    restored, cached, mask = random(1, 9, 3), random(1, 9, 3, seed=1), torch.zeros(1, 9, 1)
    mask[:, :num_cells] = 0.4
    result = fused(restored, cached, mask, source)
    torch.testing.assert_close(result, torch.lerp(cached, restored, mask), atol=0, rtol=0)


@pytest.mark.parametrize("weight", [1e-20, 0.0])
def test_a_vanishing_mask_stays_finite(weight):
    features = random(1, 9, 3)
    moments = masked_moments(features, torch.full((1, 9, 1), weight))
    assert torch.isfinite(moments.mean).all() and torch.isfinite(moments.deviation).all()


def test_constant_channels_do_not_divide_by_zero():
    restored, cached, mask = torch.full((1, 6, 2), 3.0), torch.full((1, 6, 2), -1.0), torch.ones(1, 6, 1)
    assert torch.allclose(fused(restored, cached, mask, StyleSource.FACE), cached)


def test_a_full_mask_leaves_no_surroundings_to_take_style_from():
    restored, cached, mask = random(1, 8, 2), random(1, 8, 2, seed=1), torch.ones(1, 8, 1)
    assert torch.equal(fused(restored, cached, mask, StyleSource.SURROUNDINGS), restored)


@pytest.mark.parametrize("source", StyleSource)
def test_an_empty_mask_returns_the_background_exactly_and_no_strength_the_restored(source):
    restored, cached = random(2, 16, 4).half(), random(2, 16, 4, seed=1).half()
    mask, whole = torch.zeros(2, 16, 1), torch.ones(2, 16, 1)
    assert torch.equal(fused(restored, cached, mask, source), cached)
    assert torch.equal(fused(restored, cached, mask, source, strength=0.0), restored)
    assert torch.equal(fused(restored, cached, whole, source, style_strength=0.0), restored)


def test_nothing_is_computed_outside_the_mask_and_inputs_stay_as_they_are():
    restored, cached, mask = random(1, 9, 3), random(1, 9, 3, seed=1), torch.zeros(1, 9, 1)
    mask[:, 2:6] = torch.tensor([0.2, 1.0, 1.0, 0.5])[:, None]
    assert GridMask.of(mask).inside.tolist() == [2, 3, 4, 5]
    restored[:, 7], before = float("nan"), cached.clone()
    result = fused(restored, cached, mask, StyleSource.FACE)
    assert torch.isfinite(result).all() and torch.equal(cached, before) and restored[0, 7].isnan().all()


def test_cached_features_are_shared_by_cond_and_uncond():
    restored, cached = random(2, 3, 16, 4), random(3, 16, 4, seed=1)  # (cond or uncond, batch, cells, channels)
    mask = torch.rand(3, 16, 1, generator=torch.Generator().manual_seed(2))
    together = fused(restored, cached, mask, StyleSource.FACE)
    for chunk in range(2):
        torch.testing.assert_close(together[chunk], fused(restored[chunk], cached, mask, StyleSource.FACE))


@given(
    cells=st.integers(2, 40),
    channels=st.integers(1, 6),
    style_strength=st.floats(0, 1),
    strength=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    source=st.sampled_from(StyleSource),
)
def test_fusion_is_always_finite_and_moves_only_towards_its_target(
    cells, channels, style_strength, strength, seed, source
):
    restored, cached = random(1, cells, channels, seed=seed), random(1, cells, channels, seed=seed + 1)
    mask = (torch.rand(1, cells, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 0.5).clamp(0, 1)
    whole = fused(restored, cached, mask, source, style_strength=style_strength)
    part = fused(restored, cached, mask, source, style_strength=style_strength, strength=strength)
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(part, restored + strength * (whole - restored), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"style_strength": 1.5}, "style_strength is 1.5"),
        ({"latent_strength": -0.1}, "latent_strength is -0.1"),
        ({"start_percent": 0.8, "end_percent": 0.2}, "starts at 80% of the steps but ends at 20%"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(InvalidInputError, match=text):
        FusionSettings(**settings)


def test_ranges_count_from_the_noisiest_step_and_the_first_layer():
    settings = FusionSettings(start_percent=0.5, end_percent=1.0, first_layer=1, last_layer=2)
    assert [step for step in range(10, 0, -1) if settings.covers_step(step, 10)] == [5, 4, 3, 2, 1]
    assert [layer for layer in range(5) if settings.covers_layer(layer)] == [1, 2]
    assert all(FusionSettings().covers_step(step, 7) for step in range(1, 8))
