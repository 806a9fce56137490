"""The cache of an inversion that does not fit on the GPU; skipped, saying so, without one."""

import pytest
import torch
from fpga.fpga_core.block_slots import BlockSlot
from fpga.fpga_core.restoration.feature_cache import AttentionLayer, CacheMode, CachePlan, FeatureCache
from fpga.fpga_core.restoration.fusion import FusionSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

LAYER = AttentionLayer(BlockSlot("input", 1, 0), 4096, 320)


def test_maps_beyond_the_gpus_share_come_back_as_recorded():
    """Maps are overwritten on the GPU as soon as they are recorded, so a copy that lags behind would show it."""
    plan = CachePlan.of(CacheMode.FULL, (LAYER,), settings=FusionSettings(), num_steps=8, latent_shape=(1, 4, 64, 64))
    maps = [torch.randn(1, 4096, 320, dtype=torch.float16, device="cuda") for _ in range(8)]
    expected = [one.cpu() for one in maps]
    with FeatureCache(plan, budget_mib=plan.num_mib, device_bytes=2 * maps[0].nbytes) as cache:
        for step, one in enumerate(maps, 1):
            cache.record(step, LAYER.slot, one, mask=None)
            one.zero_()
        kept = [cache.background(step, LAYER.slot, device=one.device) for step, one in enumerate(maps, 1)]
        assert all(torch.equal(one.cpu(), other) for one, other in zip(kept, expected, strict=True))
