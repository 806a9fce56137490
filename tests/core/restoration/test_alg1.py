"""Alg. 1 as a whole, against a plain reference: one face at a time, loops, dictionaries, no code of the package.

The model is a small random network with two self-attention layers on different grids, so that features matter.
"""

import pytest
import torch
import torch.nn.functional as F
from fpga.fpga_core.restoration.attention import AttentionFusion, AttentionRecorder, MaskOnGrids, StepCounter
from fpga.fpga_core.restoration.feature_cache import AttentionLayer, CacheMode, CachePlan, FeatureCache
from fpga.fpga_core.restoration.fusion import FusionSettings, StyleSource
from fpga.fpga_core.restoration.sampling import invert, restore

FINE, COARSE = ("input", 1, 0), ("middle", 0, 0)
LAYERS = (AttentionLayer(FINE, 64, 6), AttentionLayer(COARSE, 16, 6))
SIGMAS = torch.tensor([14.6, 7.0, 3.0, 1.2, 0.5, 0.1, 0.0])
T = len(SIGMAS) - 1
EPS = 1e-5


class Network:
    """x0 = c_skip x + c_out net(c_in x + identity), with two attention layers that pass through `on_attention`."""

    def __init__(self, seed: int = 0, identity: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        square = dict.fromkeys(("q", "k", "v", "q2", "k2", "v2"), (6, 6))
        shapes = {"in": (6, 4), **square, "out": (4, 6)}
        self.weights = {
            name: torch.randn(*shape, generator=generator) / shape[-1] ** 0.5 for name, shape in shapes.items()
        }
        self.identity = identity
        self.on_attention = lambda features, slot: features

    def attention(self, tokens, suffix, slot):
        q, k, v = (tokens @ self.weights[name + suffix].T for name in "qkv")
        return tokens + self.on_attention(torch.softmax(q @ k.mT / 6**0.5, -1) @ v, slot)

    def __call__(self, x, sigma):
        scale = 1 / (1 + sigma**2)
        h = (x * scale**0.5 + self.identity).flatten(2).mT @ self.weights["in"].T
        h = self.attention(h, "", FINE)
        grid = F.avg_pool2d(h.mT.unflatten(2, (8, 8)), 2)
        coarse = self.attention(grid.flatten(2).mT, "2", COARSE)
        h = h + F.interpolate(coarse.mT.unflatten(2, (4, 4)), scale_factor=2).flatten(2).mT
        out = (torch.tanh(h) @ self.weights["out"].T).mT.unflatten(2, (8, 8))
        return x * scale + out * (sigma * scale**0.5)


def reference_fuse(restored, cached, m, style):
    """M * AdaIN(F; style) + (1 - M) * cached for (cells, channels); moments over M and over the style's mask."""
    out = torch.empty_like(restored)
    w = m if style == "face" else 1 - m
    for c in range(restored.shape[1]):
        f, g = restored[:, c], cached[:, c]
        if style == "off":
            out[:, c] = m * f + (1 - m) * g
            continue
        mu = (m * f).sum() / m.sum()
        sd = ((m * (f - mu) ** 2).sum() / m.sum() + EPS).sqrt()
        mu_s = (w * g).sum() / w.sum()
        sd_s = ((w * (g - mu_s) ** 2).sum() / w.sum() + EPS).sqrt()
        out[:, c] = m * ((f - mu) / sd * sd_s + mu_s) + (1 - m) * g
    return out


def reference_diir(inverse_model, model, z0, mask, style, repetitions):
    """Alg. 1 for one face: z0 (1, 4, 8, 8), mask (8, 8)."""
    levels = [float(s) for s in reversed(SIGMAS)]
    latents, maps = [z0], [{}]
    z, noise = z0, torch.zeros_like(z0)
    for t in range(1, T + 1):  # line 2
        guess = z + (levels[t] - levels[t - 1]) * noise
        for _ in range(repetitions + 1):
            kept = {}

            def keep(features, slot, kept=kept):
                kept[slot] = features[0].clone()
                return features

            inverse_model.on_attention = keep
            noise = (guess - inverse_model(guess, torch.tensor(levels[t]))) / levels[t]
            guess = z + (levels[t] - levels[t - 1]) * noise
        z = guess
        latents.append(z)
        maps.append(kept)
    half = mask.reshape(4, 2, 4, 2).mean((1, 3))
    cells = {FINE: mask.flatten(), COARSE: half.flatten()}
    z = latents[T]  # line 3
    for t in range(T, 0, -1):  # line 5
        model.on_attention = lambda f, slot, t=t: reference_fuse(f[0], maps[t][slot], cells[slot], style)[
            None
        ]  # line 6
        z = z + (levels[t - 1] - levels[t]) * (z - model(z, torch.tensor(levels[t]))) / levels[t]  # lines 4, 7
        z = reference_fuse(z[0].flatten(1).T, latents[t - 1][0].flatten(1).T, cells[FINE], style).T.reshape(
            z.shape
        )  # line 8
    return z


def plan_for(mode, settings, num_steps, batch) -> CachePlan:
    shape = (batch, 4, 8, 8)
    return CachePlan.of(mode, LAYERS, settings=settings, num_steps=num_steps, latent_shape=shape, dtype=torch.float32)


def diir(inverse_model, model, z0, mask, settings, repetitions, mode=CacheMode.FULL):
    """The code under test; z0 (batch, 4, 8, 8), mask (batch, 8, 8)."""
    counter, masks = StepCounter(), MaskOnGrids(mask[:, None])
    plan = plan_for(mode, settings, T, len(z0))
    with FeatureCache(plan, budget_mib=16) as cache:
        recorder = AttentionRecorder(cache, counter, masks)
        inverse_model.on_attention = lambda features, slot: (recorder.record(features, slot), features)[1]
        cache.record_latent(0, z0)
        for step in invert(inverse_model, z0, sigmas=SIGMAS, repetitions=repetitions, counter=counter):
            cache.record_latent(step.step, step.latent)
        fusion = AttentionFusion(cache=cache, counter=counter, masks=masks, settings=settings, layers=plan.slots)
        model.on_attention = fusion.fuse
        start = cache.latent(T)
        *_, last = restore(model, cache, start=start, sigmas=SIGMAS, masks=masks, settings=settings, counter=counter)
        return last.latent


def faces(num: int = 3):
    generator = torch.Generator().manual_seed(7)
    mask = F.avg_pool2d((torch.rand(num, 1, 8, 8, generator=generator) > 0.5).float(), 3, 1, 1)[:, 0]
    return torch.randn(num, 4, 8, 8, generator=generator), mask


@pytest.mark.parametrize("style", ["face", "surroundings", "off"])
@pytest.mark.parametrize("repetitions", [0, 2])
def test_equals_the_plain_reference(style, repetitions):
    z0, mask = faces()
    settings = FusionSettings(style_source=StyleSource(style))
    restored = diir(Network(), Network(identity=0.5), z0, mask, settings, repetitions)
    for face in range(len(z0)):
        expected = reference_diir(Network(), Network(identity=0.5), z0[face : face + 1], mask[face], style, repetitions)
        assert float((restored[face] - expected[0]).abs().max()) <= 1e-4
        assert float((restored[face] - z0[face]).abs().max()) > 0.1  # the identity did change the face


@pytest.mark.parametrize("mode", CacheMode)
def test_faces_at_once_are_faces_one_by_one(mode):
    z0, mask = faces()
    together = diir(Network(), Network(identity=0.5), z0, mask, FusionSettings(), 1, mode)
    for face in range(len(z0)):
        alone = diir(
            Network(), Network(identity=0.5), z0[face : face + 1], mask[face : face + 1], FusionSettings(), 1, mode
        )
        torch.testing.assert_close(together[face : face + 1], alone, atol=1e-5, rtol=1e-5)


def test_an_empty_mask_gives_back_the_picture_whatever_the_identity():
    z0, _ = faces()
    restored = diir(Network(), Network(identity=2.0), z0, torch.zeros(3, 8, 8), FusionSettings(), 1)
    assert torch.equal(restored, z0)


def test_everything_off_is_ordinary_sampling_from_the_inverted_noise():
    z0, mask = faces()
    off = FusionSettings(style_source=StyleSource.OFF, attention_strength=0, latent_strength=0)
    restored = diir(Network(), Network(identity=0.5), z0, mask, off, 1)
    *_, last = invert(Network(), z0, sigmas=SIGMAS, repetitions=1, counter=StepCounter())
    z, model = last.latent, Network(identity=0.5)
    for sigma, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        z = z + (following - sigma) * (z - model(z, sigma)) / sigma
    assert torch.equal(restored, z)


def test_statistics_mode_leaves_attention_outside_the_mask_alone():
    """Its fused features are those of full mode inside a hard mask, and the restoration's own outside."""
    counter, settings = StepCounter(), FusionSettings()
    features, cached = torch.randn(1, 64, 6), torch.randn(1, 64, 6) * 2 + 1
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :3] = 1
    fused = {}
    for mode in (CacheMode.FULL, CacheMode.STATISTICS):
        plan = plan_for(mode, settings, 1, 1)
        cache = FeatureCache(plan, budget_mib=1)
        with counter.at(1):
            masks = MaskOnGrids(mask)
            AttentionRecorder(cache, counter, masks).record(cached, FINE)
            fusion = AttentionFusion(cache=cache, counter=counter, masks=masks, settings=settings, layers=plan.slots)
            fused[mode] = fusion.fuse(features, FINE)
    inside = mask.flatten() == 1
    torch.testing.assert_close(fused[CacheMode.FULL][:, inside], fused[CacheMode.STATISTICS][:, inside])
    assert torch.equal(fused[CacheMode.FULL][:, ~inside], cached[:, ~inside])
    assert torch.equal(fused[CacheMode.STATISTICS][:, ~inside], features[:, ~inside])


def test_only_steps_and_layers_in_range_are_fused():
    z0, mask = faces(1)
    settings = FusionSettings(start_percent=0.5, first_layer=1, latent_strength=0)
    counter, fused, plan = StepCounter(), [], plan_for(CacheMode.FULL, settings, T, len(z0))
    assert plan.slots == {COARSE} and plan.steps == {1, 2, 3}
    cache, model = FeatureCache(plan, budget_mib=1), Network()
    for step in plan.steps:
        cache.record(step, COARSE, torch.zeros(1, 16, 6), mask=None)
    masks = MaskOnGrids(mask[:, None])
    fusion = AttentionFusion(cache=cache, counter=counter, masks=masks, settings=settings, layers=plan.slots)

    def note(features, slot):
        changed = fusion.fuse(features, slot)
        if not torch.equal(changed, features):
            fused.append((counter.current, slot))
        return changed

    model.on_attention = note
    start = torch.randn(1, 4, 8, 8)
    run = restore(model, cache, start=start, sigmas=SIGMAS, masks=masks, settings=settings, counter=counter)
    list(run)
    assert fused == [(3, COARSE), (2, COARSE), (1, COARSE)]
