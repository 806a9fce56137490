"""The feature cache: sizes known beforehand, budgets, statistics equal to those of the map, threads."""

import threading

import pytest
import torch
from fpga.fpga_core.block_slots import BlockSlot
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.restoration.adain import masked_moments
from fpga.fpga_core.restoration.feature_cache import AttentionLayer, CacheMode, CachePlan, FeatureCache
from fpga.fpga_core.restoration.fusion import FusionSettings, GridMask, StyleSource

LAYERS = (
    AttentionLayer(BlockSlot("input", 1, 0), 64, 8),
    AttentionLayer(BlockSlot("middle", 0, 0), 16, 12),
    AttentionLayer(BlockSlot("output", 2, 1), 64, 8),
)
SHAPE = (2, 4, 8, 8)
CPU = torch.device("cpu")

SD15_BLOCKS = {
    "input": {1: (4096, 320), 2: (4096, 320), 4: (1024, 640), 5: (1024, 640), 7: (256, 1280), 8: (256, 1280)},
    "middle": {0: (64, 1280)},
    "output": {
        **dict.fromkeys((3, 4, 5), (256, 1280)),
        **dict.fromkeys((6, 7, 8), (1024, 640)),
        **dict.fromkeys((9, 10, 11), (4096, 320)),
    },
}
SD15_512 = tuple(
    AttentionLayer(BlockSlot(kind, number, 0), *shape)
    for kind, blocks in SD15_BLOCKS.items()
    for number, shape in blocks.items()
)


def plan(mode=CacheMode.FULL, dtype=torch.float32, settings=None, num_steps=3, shape=SHAPE) -> CachePlan:
    return CachePlan.of(
        mode, LAYERS, settings=settings or FusionSettings(), num_steps=num_steps, latent_shape=shape, dtype=dtype
    )


def features(layer: AttentionLayer, step: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE[0], layer.num_tokens, layer.channels, generator=torch.Generator().manual_seed(step))


def weights(layer: AttentionLayer) -> torch.Tensor:
    return torch.rand(SHAPE[0], layer.num_tokens, 1, generator=torch.Generator().manual_seed(9))


def mask(layer: AttentionLayer) -> GridMask:
    return GridMask.of(weights(layer))


def fill(cache: FeatureCache) -> None:
    for step in range(cache.plan.num_steps + 1):
        cache.record_latent(step, torch.randn(SHAPE))
        for layer in LAYERS:
            if step in cache.plan.steps and layer.slot in cache.plan.slots:
                cache.record(step, layer.slot, features(layer, step), mask=mask(layer))


@pytest.mark.parametrize("mode", CacheMode)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("settings", [FusionSettings(), FusionSettings(first_layer=1), FusionSettings(end_percent=0.5)])
def test_the_planned_size_is_the_recorded_size_to_the_byte(mode, dtype, settings):
    cache = FeatureCache(plan(mode, dtype, settings), budget_mib=1)
    fill(cache)
    assert cache.num_bytes == cache.plan.num_bytes
    cache.clear()
    assert cache.num_bytes == 0


def test_without_attention_fusion_only_latents_are_planned():
    settings = FusionSettings(attention_strength=0)
    assert plan(settings=settings).num_bytes == 4 * 2 * 4 * 64 * 4


def test_a_512_crop_of_sd15_at_30_steps():
    settings, shape = FusionSettings(), (1, 4, 64, 64)
    statistics = CachePlan.of(CacheMode.STATISTICS, SD15_512, settings=settings, num_steps=30, latent_shape=shape)
    full = CachePlan.of(CacheMode.FULL, SD15_512, settings=settings, num_steps=30, latent_shape=shape)
    assert statistics.num_mib <= 16
    assert full.num_mib == 663  # 11.55M numbers a step at 2 bytes, 30 times, and 31 latents of 64 KiB


def test_a_budget_that_is_too_small_names_the_one_that_would_do():
    settings, shape = FusionSettings(), (3, 4, 64, 64)
    wanted = CachePlan.of(CacheMode.FULL, SD15_512, settings=settings, num_steps=30, latent_shape=shape)
    with pytest.raises(
        InvalidInputError, match=f"512 MiB.*3 picture.*30 steps.*set cache_budget_mib to {wanted.num_mib} or more"
    ):
        FeatureCache(wanted, budget_mib=512)
    FeatureCache(wanted, budget_mib=wanted.num_mib)
    with pytest.raises(InvalidInputError):
        FeatureCache(wanted, budget_mib=wanted.num_mib - 1)


def test_full_mode_returns_what_was_recorded():
    cache, layer = FeatureCache(plan(), budget_mib=1), LAYERS[1]
    fill(cache)
    recorded = features(layer, 2)
    assert torch.equal(cache.background(2, layer.slot, device=CPU), recorded)


def test_statistics_mode_keeps_exactly_the_moments_of_the_map():
    cache = FeatureCache(plan(CacheMode.STATISTICS), budget_mib=1)
    fill(cache)
    for layer in LAYERS:
        for source, over in ((StyleSource.FACE, weights(layer)), (StyleSource.SURROUNDINGS, 1 - weights(layer))):
            kept, expected = cache.moments(1, layer.slot, source, device=CPU), masked_moments(features(layer, 1), over)
            torch.testing.assert_close(kept.mean, expected.mean)
            torch.testing.assert_close(kept.deviation, expected.deviation)
            assert torch.equal(kept.is_defined, expected.is_defined)
        assert cache.background(1, layer.slot, device=CPU) is None


def test_only_the_style_source_in_use_needs_to_be_measured():
    layer, settings = LAYERS[0], FusionSettings(style_source=StyleSource.SURROUNDINGS)
    sources = settings.sources
    cache = FeatureCache(
        CachePlan.of(CacheMode.STATISTICS, LAYERS, settings=settings, num_steps=3, latent_shape=SHAPE, sources=sources),
        budget_mib=1,
    )
    fill(cache)
    assert cache.num_bytes == cache.plan.num_bytes < plan(CacheMode.STATISTICS).num_bytes
    assert cache.moments(1, layer.slot, StyleSource.SURROUNDINGS, device=CPU) is not None
    with pytest.raises(InvalidInputError, match="no statistics of the style source face"):
        cache.moments(1, layer.slot, StyleSource.FACE, device=CPU)
    assert FusionSettings(style_source=StyleSource.OFF).sources == ()


def test_statistics_mode_without_a_mask_says_so():
    with pytest.raises(InvalidInputError, match="statistics mode measures inside and outside a mask"):
        FeatureCache(plan(CacheMode.STATISTICS), budget_mib=1).record(1, LAYERS[0].slot, features(LAYERS[0]), mask=None)


def test_of_several_calls_in_a_step_the_first_counts():
    cache, layer = FeatureCache(plan(), budget_mib=1), LAYERS[0]
    cache.record(1, layer.slot, features(layer, 1), mask=None)
    cache.record(1, layer.slot, features(layer, 2), mask=None)
    assert torch.equal(cache.background(1, layer.slot, device=CPU), features(layer, 1))


def test_a_record_is_a_copy():
    cache, layer = FeatureCache(plan(), budget_mib=1), LAYERS[0]
    changed = features(layer)
    cache.record(1, layer.slot, changed, mask=None)
    changed.zero_()
    assert torch.equal(cache.background(1, layer.slot, device=CPU), features(layer))


def test_half_precision_saturates_instead_of_overflowing():
    cache, layer = FeatureCache(plan(dtype=torch.float16), budget_mib=1), LAYERS[0]
    cache.record(1, layer.slot, torch.full((2, 64, 8), -1e6), mask=None)
    assert torch.isfinite(cache.background(1, layer.slot, device=CPU)).all()


def test_missing_entries_say_what_to_do():
    cache = FeatureCache(plan(), budget_mib=1)
    with pytest.raises(InvalidInputError, match="nothing for layer middle 0 0 at step 2 of 3"):
        cache.background(2, LAYERS[1].slot, device=CPU)
    with pytest.raises(InvalidInputError, match="no latent of step 3 of 3; run the inversion again"):
        cache.latent(3)


def test_leaving_the_context_frees_it_on_errors_too():
    cache = FeatureCache(plan(), budget_mib=1)
    with pytest.raises(KeyboardInterrupt), cache:
        fill(cache)
        assert cache.num_bytes > 0
        raise KeyboardInterrupt
    assert cache.num_bytes == 0


@pytest.mark.parametrize("mode", CacheMode)
def test_some_items_of_the_batch_share_the_storage(mode):
    cache, layer = FeatureCache(plan(mode), budget_mib=1), LAYERS[0]
    fill(cache)
    view = cache.of_items([1])
    assert view.plan.latent_shape == (1, 4, 8, 8)
    assert torch.equal(view.latent(2), cache.latent(2)[1:])
    if mode is CacheMode.FULL:
        assert torch.equal(view.background(1, layer.slot, device=CPU), cache.background(1, layer.slot, device=CPU)[1:])
    else:
        whole, part = (each.moments(1, layer.slot, StyleSource.FACE, device=CPU) for each in (cache, view))
        assert torch.equal(part.mean, whole.mean[1:]) and torch.equal(part.deviation, whole.deviation[1:])
    cache.clear()
    assert view.num_bytes == 0


def test_threads_may_record_at_once():
    cache = FeatureCache(plan(num_steps=200), budget_mib=64)
    ready = threading.Barrier(4)

    def record(worker: int) -> None:
        ready.wait()
        for step in range(1, 201):
            if step % 4 == worker:
                for layer in LAYERS:
                    cache.record(step, layer.slot, features(layer, step), mask=None)

    workers = [threading.Thread(target=record, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for step in range(1, 201):
        for layer in LAYERS:
            assert torch.equal(cache.background(step, layer.slot, device=CPU), features(layer, step))
