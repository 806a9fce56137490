"""DIIR on a small real model through the host's own sampling: round trips, fusion, interrupts, nothing left behind."""

import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, PatchConflictError, ShapeMismatchError, UnsupportedModeError
from fpga.fpga_core.patching.restoration.checks import check_restoring_model, family_of
from fpga.fpga_core.patching.restoration.samplers import RestorationSampler, mask_on_latent
from fpga.fpga_core.patching.restoration.sampling import invert_latent, restoration_sampler, restore_latent
from fpga.fpga_core.restoration.adain import masked_moments
from fpga.fpga_core.restoration.feature_cache import CacheMode
from fpga.fpga_core.restoration.fusion import FusionSettings, StyleSource
from fpga.fpga_core.restoration.settings import InversionSettings
from fpga.fpga_core.shapes import Extent
from tiny_models import conditioning, tiny_model, tiny_sdxl

OFF = FusionSettings(style_source=StyleSource.OFF, attention_strength=0, latent_strength=0)
SIZE = (12, 8)  # height and width of the latents: not square, so that a transposed grid shows
STEPS = 3
STATISTICS = InversionSettings(mode=CacheMode.STATISTICS)
NO_BUDGET = InversionSettings(budget_mib=0)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def conds():
    return conditioning(1), conditioning(2)


def latents(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, *SIZE, generator=torch.Generator().manual_seed(3))


def masks(batch: int = 2) -> torch.Tensor:
    mask = torch.zeros(batch, 8 * SIZE[0], 8 * SIZE[1])
    for item in range(batch):
        mask[item, 20 + 8 * item : 60, 15:45] = 1
    return mask


def schedule(model, steps: int = STEPS, name: str = "normal") -> torch.Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), name, steps)


def invert(model, positive, latent=None, *, steps=STEPS, mask=None, callback=None, **settings):
    latent = latents() if latent is None else latent
    settings = InversionSettings(**{"repetitions": 0, "budget_mib": 64, **settings})
    sigmas = schedule(model, steps)
    return invert_latent(model, positive, latent, sigmas=sigmas, settings=settings, mask=mask, callback=callback)


def restore(model, conds, inversion, mask, settings=FusionSettings(), cfg=3.0, callback=None, **options):  # noqa: B008
    sampler = RestorationSampler(inversion=inversion, mask=mask, settings=settings, **options)
    return restore_latent(model, *conds, cfg=cfg, sampler=sampler, callback=callback)


def euler(model, conds, inverted, steps=STEPS, cfg=3.0):
    """Ordinary sampling of the host from the inverted noise, none added."""
    sampler = comfy.samplers.sampler_object("euler")
    noise = torch.zeros_like(inverted)
    return comfy.sample.sample_custom(model, noise, cfg, sampler, schedule(model, steps), *conds, inverted)


def features_of(model, run):
    """Every self-attention output of a run, as the host's last output patch sees it: {(sigma, slot): chunks}."""
    seen, watched = {}, model.clone()

    def wrapper(executor, x, timesteps, context, y, control, options, **kwargs):
        def watch(n, extra):
            key = (float(extra["sigmas"][0]), (*extra["block"], extra["block_index"]))
            seen.setdefault(key, []).append(n.clone())
            return n

        patches = {**options["patches"], "attn1_output_patch": [*options["patches"]["attn1_output_patch"], watch]}
        return executor(x, timesteps, context, y, control, {**options, "patches": patches}, **kwargs)

    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    run(watched)
    return seen


@pytest.mark.parametrize("v_prediction", [False, True])
def test_the_round_trip_comes_back_and_repetitions_bring_it_closer(v_prediction, conds):
    """On random weights only the trend means something; the figures for a trained model are in the docs."""
    model = tiny_model(v_prediction=v_prediction)
    errors = []
    for repetitions in (0, 1, 4):
        inverted, inversion = invert(model, conds[0], steps=10, repetitions=repetitions)
        back = euler(model, conds, inverted, steps=10, cfg=1.0)
        errors.append(float((back - latents()).norm() / latents().norm()))
        assert inversion.residuals.shape == (10, 2)
    assert errors[2] < errors[1] < errors[0], errors


def test_everything_off_is_ordinary_sampling_from_the_inverted_noise(model, conds):
    inverted, inversion = invert(model, conds[0])
    restored = restore(model, conds, inversion, masks(), OFF)

    def from_inverted(m, x, sigmas, **kwargs):
        return comfy.k_diffusion.sampling.sample_euler(m, inversion.cache.latent(STEPS), sigmas, **kwargs)

    sampler, zeros = comfy.samplers.KSAMPLER(from_inverted), torch.zeros_like(inverted)
    ordinary = comfy.sample.sample_custom(model, zeros, 3.0, sampler, schedule(model), *conds, zeros)
    torch.testing.assert_close(restored, ordinary, atol=1e-5, rtol=1e-5)
    # Through the latent output the noise passes the host's scaling and back, which rounds.
    torch.testing.assert_close(restored, euler(model, conds, inverted), atol=2e-3, rtol=1e-3)


def test_an_empty_mask_replays_the_cached_features_exactly_for_cond_and_uncond(model, conds):
    _, inversion = invert(model, conds[0], is_half=False)
    settings = FusionSettings(style_source=StyleSource.FACE, latent_strength=0)
    empty = torch.zeros_like(masks())
    seen = features_of(model, lambda watched: restore(watched, conds, inversion, empty, settings))
    assert len(seen) == STEPS * len(inversion.layers)
    levels = [float(sigma) for sigma in inversion.sigmas]
    for (sigma, slot), calls in seen.items():
        step = STEPS - min(range(STEPS), key=lambda i, sigma=sigma: abs(levels[i] - sigma))
        cached = inversion.cache.background(step, slot, device=torch.device("cpu"))
        chunks = torch.cat(calls).chunk(2)  # uncond and cond, however the host batched them
        assert all(torch.equal(chunk.cpu(), cached) for chunk in chunks)


def test_an_empty_mask_gives_back_the_picture(model, conds):
    _, inversion = invert(model, conds[0], is_half=False)
    restored = restore(model, conds, inversion, torch.zeros_like(masks()), cfg=7.0)
    torch.testing.assert_close(restored, latents(), atol=1e-5, rtol=1e-5)


def test_the_inversion_records_what_its_last_repetition_saw(model, conds):
    """Features recorded at step t are those of the model at (Z_t, sigma_t), up to the residual."""
    _, inversion = invert(model, conds[0], repetitions=8, is_half=False)
    seen = {}

    def watch(n, extra):
        seen[(*extra["block"], extra["block_index"])] = n.clone()
        return n

    watched = model.clone()
    watched.set_model_attn1_output_patch(watch)
    guider = comfy.samplers.CFGGuider(watched)
    guider.inner_set_conds({"positive": conds[0]})
    step = 2
    one_call = comfy.samplers.KSAMPLER(
        lambda m, x, sigmas, extra_args, callback, disable: m(x, sigmas[:1], **extra_args)
    )
    sigmas = inversion.sigmas[[STEPS - step, STEPS]]
    scaled = model.model.process_latent_out(inversion.cache.latent(step))
    guider.sample(torch.zeros_like(scaled), scaled, one_call, sigmas, disable_pbar=True)
    for slot, features in seen.items():
        cached = inversion.cache.background(step, slot, device=torch.device("cpu"))
        assert float((features - cached).norm() / features.norm()) < 1e-3


def test_the_face_receives_the_style_of_the_broken_one(model, conds):
    """After the last step the latent has, inside the mask, mean and deviation of the picture that was inverted."""
    _, inversion = invert(model, conds[0])
    mask = (mask_on_latent(masks(), (2, 4, *SIZE)) == 1).float()
    restored = restore(model, conds, inversion, mask[:, 0], FusionSettings())
    cells, wanted, weights = (x.flatten(2).mT for x in (restored, latents(), mask))
    found, expected = masked_moments(cells, weights), masked_moments(wanted, weights)
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.deviation, expected.deviation, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(restored * (1 - mask), latents() * (1 - mask), atol=1e-5, rtol=1e-5)
    assert float((restored - latents())[:, :, 4:7, 3:5].abs().mean()) > 0.05


@pytest.mark.parametrize("mode", CacheMode)
@pytest.mark.parametrize("make_model", [tiny_model, tiny_sdxl])
def test_faces_at_once_are_faces_one_by_one(mode, make_model, conds):
    model = make_model()

    def run(items):
        _, inversion = invert(model, conds[0], latents(3)[items], mode=mode, mask=masks(3)[items], is_half=False)
        return restore(model, conds, inversion, masks(3)[items])

    together = run([0, 1, 2])
    for item in range(3):
        assert float((together[item] - run([item])[0]).abs().max()) <= 1e-4


def test_cond_and_uncond_in_separate_calls_are_fused_alike(model, conds):
    """Prompts of different kinds cannot be batched by the host; the result must not depend on it."""
    _, inversion = invert(model, conds[0])
    together = restore(model, conds, inversion, masks())
    control_like = [[conds[1][0][0], {**conds[1][0][1], "model_conds": {"unlike": comfy.conds.CONDConstant(1)}}]]
    apart = restore(model, (conds[0], control_like), inversion, masks())
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


def test_of_several_prompts_the_first_ones_features_are_kept(model, conds):
    first, second = conds[0], conditioning(9)
    prompts = (first, second, [*first, *second], [*second, *first])
    layers = family_of(model).layers(model, Extent(8, 12))
    slot = layers[-1].slot  # behind all cross attention, so that the prompt matters
    kept = [
        invert(model, prompt, steps=1, is_half=False)[1].cache.background(1, slot, device=torch.device("cpu"))
        for prompt in prompts
    ]
    torch.testing.assert_close(kept[2], kept[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept[3], kept[1], atol=1e-5, rtol=1e-5)
    assert float((kept[0] - kept[1]).abs().max()) > 1e-3


def test_a_folded_branch_or_lora_on_the_model_is_inverted_like_any_model(model, conds):
    patched = model.clone()
    weight = model.model.diffusion_model.input_blocks[0][0].weight
    assert patched.add_patches({"diffusion_model.input_blocks.0.0.weight": ("diff", (torch.ones_like(weight),))}, 0.1)

    def error(inverting):
        inverted, _ = invert(inverting, conds[0], steps=10, repetitions=2)
        return float((euler(patched, conds, inverted, steps=10, cfg=1.0) - latents()).norm())

    assert error(patched) < error(model) / 2


def test_other_noise_is_seeded_and_of_the_same_deviation(model, conds):
    _, inversion = invert(model, conds[0])
    runs = [restore(model, conds, inversion, masks(), OFF, noise_strength=1.0, noise_seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


class Interrupt(Exception):
    pass


def state_of(model):
    patches = model.model_options["transformer_options"].get("patches", {})
    options = {name: list(found) for name, found in patches.items()}
    return options, dict(model.wrappers), {k: v.clone() for k, v in model.model.state_dict().items()}


@pytest.mark.parametrize("phase", ["inversion", "restoration"])
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (0, torch.OutOfMemoryError),
        (1, comfy.model_management.InterruptProcessingException),
        (2, torch.OutOfMemoryError),
    ],
)
def test_a_failure_at_any_step_leaves_nothing_on_the_model_and_the_next_run_is_right(conds, phase, call, error):
    model = tiny_model()
    _, inversion = invert(model, conds[0])
    expected = restore(model, conds, inversion, masks())
    before, calls = state_of(model), []

    def fails(executor, *args, **kwargs):
        calls.append(1)
        if len(calls) > call:
            raise error("injected")
        return executor(*args, **kwargs)

    failing = model.clone()
    failing.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, fails)
    with pytest.raises(error):
        if phase == "inversion":
            invert(failing, conds[0])
        else:
            restore(failing, conds, inversion, masks())
    after = state_of(model)
    assert before[0] == after[0] and before[1] == after[1]
    assert all(torch.equal(before[2][key], after[2][key]) for key in before[2])
    assert torch.equal(restore(model, conds, invert(model, conds[0])[1], masks()), expected)


def test_a_failed_inversion_frees_its_cache(model, conds, monkeypatch):
    from fpga.fpga_core.patching.restoration import sampling

    caches = []

    class Watched(sampling.FeatureCache):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            caches.append(self)

    monkeypatch.setattr(sampling, "FeatureCache", Watched)

    def stop(step, x0, x, total):
        if step == 1:
            assert caches[0].num_bytes > 0
            raise Interrupt

    with pytest.raises(Interrupt):
        invert(model, conds[0], callback=stop)
    assert caches[0].num_bytes == 0


def test_progress_and_previews_are_reported_for_every_step(model, conds):
    reported = []
    _, inversion = invert(model, conds[0], callback=lambda step, x0, x, total: reported.append((step, total, x0.shape)))
    restore(
        model, conds, inversion, masks(), callback=lambda step, x0, x, total: reported.append((step, total, x0.shape))
    )
    assert reported == [(step, STEPS, (2, 4, *SIZE)) for step in (*range(STEPS), *range(STEPS))]


def test_the_interrupt_button_is_obeyed_within_a_step(model, conds):
    def press(step, x0, x, total):
        comfy.model_management.interrupt_current_processing(True)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        invert(model, conds[0], callback=press)
    assert not comfy.model_management.processing_interrupted()


def test_the_layers_shapes_are_those_of_a_run(model, conds):
    for make_model in (tiny_model, tiny_sdxl):
        model, seen = make_model(), {}
        seen = features_of(model, lambda watched: invert(watched, conds[0], latents(1), steps=1, repetitions=0))
        planned = {
            layer.slot: (1, layer.num_tokens, layer.channels) for layer in family_of(model).layers(model, Extent(8, 12))
        }
        assert {slot: tuple(calls[0].shape) for (_, slot), calls in seen.items()} == planned
        assert list(planned) == [slot for _, slot in seen]


def test_odd_latents_are_planned_and_fused_right(model, conds):
    latent = torch.randn(1, 4, 9, 7)
    _, inversion = invert(model, conds[0], latent, is_half=False)
    restored = restore(model, conds, inversion, torch.zeros(1, 72, 56))
    torch.testing.assert_close(restored, latent, atol=1e-5, rtol=1e-5)


def test_models_without_reachable_self_attention_are_refused(model):
    transformer = tiny_model()
    transformer.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(
        UnsupportedModeError, match=r"BaseModel \(Linear\), and this node needs .*SDXL.* FLUX.1 .*Krea 2"
    ):
        check_restoring_model(transformer)
    flow = tiny_model()
    flow.add_object_patch("model_sampling", comfy.model_sampling.CONST())
    with pytest.raises(UnsupportedModeError, match=r"CONST.*Stable Diffusion 1.x, 2.x and SDXL"):
        check_restoring_model(flow)
    check_restoring_model(model)


def node_output(result):
    return result.result[0] if hasattr(result, "result") else result[0]


def with_hypertile(model):
    from comfy_extras.nodes_hypertile import HyperTile

    return node_output(HyperTile.execute(model, 256, 2, 0, False))


def with_tome(model):
    from comfy_extras.nodes_tomesd import TomePatchModel

    return node_output(TomePatchModel.execute(model, 0.5))


def with_easycache(model):
    from comfy_extras.nodes_easycache import EasyCacheNode

    return node_output(EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False))


def with_lazycache(model):
    from comfy_extras.nodes_easycache import LazyCacheNode

    return node_output(LazyCacheNode.execute(model, 0.2, 0.15, 0.95, False))


def sample_in_host(model, conds, inversion, latent, sigmas=None, **options):
    """Restoration Sampler in a graph, where anything may be connected to the node that samples."""
    sampler = restoration_sampler(inversion, masks(), FusionSettings())
    sigmas = schedule(model) if sigmas is None else sigmas
    noise = torch.zeros_like(latent)
    return comfy.sample.sample_custom(model, noise, 3.0, sampler, sigmas, *conds, latent, **options)


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (with_hypertile, "HyperTile"),
        (with_tome, "Tome Patch Model"),
        (with_easycache, "EasyCache"),
        (with_lazycache, "LazyCache"),
    ],
)
def test_token_merging_and_step_skipping_are_refused_by_name(model, conds, patch, name):
    patched = patch(model)
    with pytest.raises(PatchConflictError, match=name):
        invert(patched, conds[0])
    _, inversion = invert(model, conds[0])
    with pytest.raises(PatchConflictError, match=name):
        sample_in_host(patched, conds, inversion, latents())


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda a: a.update(sigmas=torch.tensor([5.0, 1.0])), InvalidInputError, "end at 1"),
        (lambda a: a.update(positive=[]), InvalidInputError, "positive conditioning is empty"),
        (lambda a: a.update(latent=torch.zeros(1, 16, 12, 8)), ShapeMismatchError, "with this model's VAE"),
        (lambda a: a.update(settings=STATISTICS), InvalidInputError, "statistics mode measures"),
        (lambda a: a.update(settings=NO_BUDGET), InvalidInputError, "set cache_budget_mib to 1 or more"),
        (lambda a: a.update(mask=torch.zeros(5, 96, 64)), ShapeMismatchError, r"one mask, or one per picture \(2\)"),
        (
            lambda a: a.update(mask=torch.zeros(1, 64, 96)),
            ShapeMismatchError,
            "the mask is 96x64, but the latent is 8x12, which has another aspect ratio",
        ),
    ],
)
def test_bad_input_is_refused_before_the_model_runs(model, conds, change, error, text):
    def never(executor, *args, **kwargs):
        raise AssertionError("the model was called")

    guarded = model.clone()
    guarded.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, never)
    arguments = {
        "model": guarded,
        "positive": conds[0],
        "latent": latents(),
        "sigmas": schedule(model),
        "settings": InversionSettings(repetitions=0, budget_mib=64),
    }
    change(arguments)
    with pytest.raises(error, match=text):
        invert_latent(**arguments)


def test_a_restoration_must_fit_its_inversion(model, conds):
    _, inversion = invert(model, conds[0])

    def sample(latent, sigmas):
        return sample_in_host(model, conds, inversion, latent, sigmas)

    with pytest.raises(
        ShapeMismatchError, match=r"latent to restore is \(1, 4, 12, 8\), but the inverted one was \(2, 4"
    ):
        sample(latents(1), schedule(model))
    with pytest.raises(InvalidInputError, match="sampler runs 4 steps.*but the inversion ran 3"):
        sample(latents(), schedule(model, 4))
    with pytest.raises(InvalidInputError, match="connect the same sigmas"):
        sample(latents(), schedule(model, name="karras"))
    area = [[conds[0][0][0], {**conds[0][0][1], "area": (4, 8, 0, 0), "strength": 1.0}]]
    with pytest.raises(ShapeMismatchError, match="remove areas from the conditioning"):
        restore(model, (area, conds[1]), inversion, masks())
    in_host = sample(latents(), schedule(model))
    assert torch.equal(in_host, restore(model, conds, inversion, masks()))


def test_a_noise_mask_on_the_latent_does_not_disturb_the_inversion(model, conds):
    """Set Latent Noise Mask before a restoration: the mask node's own blending must not act inside the model calls."""
    _, inversion = invert(model, conds[0])
    plain, masked = (
        sample_in_host(model, conds, inversion, latents(), noise_mask=noise_mask)
        for noise_mask in (None, torch.ones(1, 1, *SIZE))
    )
    assert torch.equal(plain, masked)
