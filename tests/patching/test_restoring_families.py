"""DIIR on every family of transformers, on small models of the host's own classes: what is claimed of UNets holds."""

import comfy.k_diffusion.sampling
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_flux import FluxGuidance
from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow
from fpga.fpga_core.errors import ShapeMismatchError, UnsupportedModeError
from fpga.fpga_core.patching.restoration.checks import check_restoring_model, family_of
from fpga.fpga_core.patching.restoration.samplers import RestorationSampler
from fpga.fpga_core.patching.restoration.sampling import invert_latent, restore_latent
from fpga.fpga_core.restoration.feature_cache import CacheMode
from fpga.fpga_core.restoration.fusion import FusionSettings, StyleSource
from fpga.fpga_core.restoration.settings import InversionSettings
from fpga.fpga_core.shapes import Extent
from tiny_transformers import TEXT_TOKENS, TINY

OFF = FusionSettings(style_source=StyleSource.OFF, attention_strength=0, latent_strength=0)
STEPS = 3
CPU = torch.device("cpu")

FIRST_PICTURE_TOKEN = {"FLUX.2": 512, "Z-Image": 32, "Lens": 0}
"""Texts are padded to this many tokens, or follow the picture; otherwise, the picture follows the text."""

READ_REFERENCES = ("FLUX.1 dev", "FLUX.2", "Qwen-Image", "Mage-Flow", "Krea 2", "Z-Image")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=TINY)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return TINY[name]


@pytest.fixture(scope="module")
def model(family):
    return family.model()


@pytest.fixture
def conds(family):
    return family.prompt(1), family.prompt(2)


def masks(latent):
    mask = torch.zeros(len(latent), 8 * latent.shape[-2], 8 * latent.shape[-1])
    for item in range(len(latent)):
        mask[item, 20 + 8 * item : 60, 15:45] = 1
    return mask


def schedule(model, steps=STEPS):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)


def invert(model, positive, latent, *, steps=STEPS, mask=None, callback=None, **settings):
    settings = InversionSettings(**{"repetitions": 0, "budget_mib": 64, "is_half": False, **settings})
    sigmas = schedule(model, steps)
    return invert_latent(model, positive, latent, sigmas=sigmas, settings=settings, mask=mask, callback=callback)


def restore(model, conds, inversion, mask, settings=FusionSettings(), cfg=3.0):  # noqa: B008
    sampler = RestorationSampler(inversion=inversion, mask=mask, settings=settings)
    return restore_latent(model, *conds, cfg=cfg, sampler=sampler)


def euler(model, conds, inversion, cfg):
    """Ordinary sampling of the host, from where an inversion ended."""

    def from_inverted(m, x, sigmas, **kwargs):
        return comfy.k_diffusion.sampling.sample_euler(m, inversion.cache.latent(len(sigmas) - 1), sigmas, **kwargs)

    zeros, sampler = torch.zeros(inversion.cache.plan.latent_shape), comfy.samplers.KSAMPLER(from_inverted)
    return comfy.sample.sample_custom(model, zeros, cfg, sampler, inversion.sigmas, *conds, zeros, disable_pbar=True)


def attention_of(model, run):
    """What every attention of a run gave, outermost: [(sigma, block type, number, all tokens before and after)]."""
    seen, watched = [], model.clone()

    def wrapper(executor, *args, **kwargs):
        options = next(value for value in args if isinstance(value, dict))
        reached = options["optimized_attention_override"]

        def watch(attention, *inputs, **named):
            untouched, call = [], named["transformer_options"]

            def keep(*a, **k):
                untouched.append(attention(*a, **k))
                return untouched[0].clone()

            output = reached(keep, *inputs, **named)
            place = (float(call["sigmas"][0]), call.get("block_type"), call.get("block_index"))
            seen.append((*place, untouched[0], output.clone()))
            return output

        options["optimized_attention_override"] = watch
        return executor(*args, **kwargs)

    watched.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, wrapper)
    run(watched)
    return [entry for entry in seen if entry[1] is not None]


def test_the_round_trip_comes_back_and_repetitions_bring_it_closer(model, family):
    """On random weights only the trend means something; `dev.py bench inversion_flow` prints the figures."""
    latent, prompt, errors = family.latents(), family.prompt(guidance=1.0), []
    for repetitions in (0, 1, 4):
        noise, inversion = invert(model, prompt, latent, steps=6, repetitions=repetitions)
        errors.append(float((euler(model, (prompt, prompt), inversion, 1.0) - latent).norm() / latent.norm()))
        assert noise.shape == latent.shape and noise.isfinite().all()
    assert errors[2] < errors[1] < errors[0], errors


@pytest.mark.parametrize("name", ["Z-Image"], indirect=True)
def test_a_schedule_shifted_by_another_node_is_followed(model, family):
    (shifted,), latent = ModelSamplingAuraFlow().patch_aura(model, shift=5.0), family.latents(1)
    assert not torch.allclose(schedule(shifted), schedule(model))
    prompt, errors = family.prompt(), []
    for repetitions in (1, 6):
        _, inversion = invert(shifted, prompt, latent, steps=12, repetitions=repetitions)
        assert torch.equal(inversion.sigmas, schedule(shifted, 12))
        errors.append(float((euler(shifted, (prompt, prompt), inversion, 1.0) - latent).norm() / latent.norm()))
    assert errors[1] < errors[0] / 2, errors


def test_everything_off_is_ordinary_sampling_from_the_inverted_noise(model, family, conds):
    latent = family.latents()
    _, inversion = invert(model, conds[0], latent)
    torch.testing.assert_close(
        restore(model, conds, inversion, masks(latent), OFF), euler(model, conds, inversion, 3.0), atol=1e-5, rtol=1e-5
    )


def picture_of(name, output, num_tokens):
    """The picture's tokens in what an attention gave, and the other tokens."""
    first = FIRST_PICTURE_TOKEN.get(name, TEXT_TOKENS) if output.shape[1] > num_tokens else 0
    return output[:, first : first + num_tokens], torch.cat((output[:, :first], output[:, first + num_tokens :]), dim=1)


def test_an_empty_mask_replays_the_cached_features_exactly_and_leaves_the_text_alone(model, name, family, conds):
    latent = family.latents()
    _, inversion = invert(model, conds[0], latent)
    settings = FusionSettings(style_source=StyleSource.FACE, latent_strength=0)
    empty = torch.zeros_like(masks(latent))
    seen = attention_of(model, lambda watched: restore(watched, conds, inversion, empty, settings))
    assert len(seen) == STEPS * family.num_layers == STEPS * len(inversion.layers)
    layers = [layer.slot for layer in inversion.layers] * STEPS
    for call, ((_, kind, number, untouched, output), slot) in enumerate(zip(seen, layers, strict=True)):
        step = STEPS - call // family.num_layers
        assert (kind, number) == slot[:2]
        tokens = -(-12 // family.patch) * -(-8 // family.patch)
        picture, others = picture_of(name, output, tokens)
        cached = inversion.cache.background(step, slot, device=CPU)
        assert all(torch.equal(chunk, cached) for chunk in picture.chunk(2))  # cond and uncond
        assert torch.equal(others, picture_of(name, untouched, tokens)[1])


def test_an_empty_mask_gives_back_the_picture(model, family, conds):
    latent = family.latents(height=9, width=7)  # odd, so that tokens reach beyond it
    _, inversion = invert(model, conds[0], latent)
    restored = restore(model, conds, inversion, torch.zeros_like(masks(latent)), cfg=7.0)
    torch.testing.assert_close(restored, latent, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", [CacheMode.FULL, CacheMode.STATISTICS])
def test_faces_at_once_are_faces_one_by_one(model, family, conds, mode):
    latent = family.latents(3)

    def run(items):
        mask = masks(latent)[items]
        _, inversion = invert(model, conds[0], latent[items], mode=mode, mask=mask)
        return restore(model, conds, inversion, mask)

    together = run([0, 1, 2])
    for item in range(3):
        assert float((together[item] - run([item])[0]).abs().max()) <= 1e-4
    assert float((together - latent).abs().max()) > 1e-2


def test_the_layers_shapes_are_those_of_a_run(model, name, family, conds):
    latent = family.latents(1)
    layers = family_of(model).layers(model, Extent(8, 12))
    seen = attention_of(model, lambda watched: invert(watched, conds[0], latent, steps=1))
    assert [entry[1:3] for entry in seen] == [layer.slot[:2] for layer in layers]
    for (*_, output), layer in zip(seen, layers, strict=True):
        picture, _ = picture_of(name, output, layer.num_tokens)
        assert picture.shape == (1, layer.num_tokens, layer.channels)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, comfy.model_management.InterruptProcessingException])
@pytest.mark.parametrize("phase", ["inversion", "restoration"])
def test_a_failure_leaves_nothing_on_the_model_and_the_next_run_is_right(family, conds, phase, error):
    model, latent, calls = family.model(), family.latents(), []
    before = euler(model, conds, invert(model, conds[0], latent)[1], 3.0)
    inversion = invert(model, conds[0], latent)[1]
    expected = restore(model, conds, inversion, masks(latent))

    def fails(executor, *args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise error("injected")
        return executor(*args, **kwargs)

    failing = model.clone()
    failing.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, fails)
    with pytest.raises(error):
        if phase == "inversion":
            invert(failing, conds[0], latent)
        else:
            restore(failing, conds, inversion, masks(latent))
    assert not model.model_options["transformer_options"]
    assert torch.equal(euler(model, conds, invert(model, conds[0], latent)[1], 3.0), before)
    assert torch.equal(restore(model, conds, invert(model, conds[0], latent)[1], masks(latent)), expected)


@pytest.mark.parametrize("name", READ_REFERENCES, indirect=True)
def test_tokens_of_reference_pictures_are_not_the_pictures(model, name, family):
    """Two references of different sizes; the picture's own tokens are fused, wherever the host puts the others."""
    latent = family.latents()
    references = [family.latents(1, 6, 6, seed=5), family.latents(1, 4, 8, seed=6)]
    prompt = family.prompt(1, reference_latents=references, reference_latents_method="index")
    _, inversion = invert(model, prompt, latent)
    empty = torch.zeros_like(masks(latent))
    settings = FusionSettings(style_source=StyleSource.FACE, latent_strength=0)
    seen = attention_of(model, lambda watched: restore(watched, (prompt, prompt), inversion, empty, settings))
    num_tokens = inversion.layers[0].num_tokens
    for call, ((*_, output), layer) in enumerate(zip(seen, inversion.layers * STEPS, strict=True)):
        first, step = FIRST_PICTURE_TOKEN.get(name, TEXT_TOKENS), STEPS - call // family.num_layers
        first = output.shape[1] - 32 if name == "Z-Image" else first  # its own picture, padded to 32 tokens, is last
        assert output.shape[1] >= first + num_tokens + (0 if name == "Z-Image" else 9)  # the references are there
        cached = inversion.cache.background(step, layer.slot, device=CPU)
        assert all(torch.equal(chunk, cached) for chunk in output[:, first : first + num_tokens].chunk(2))


def test_prompts_confined_to_an_area_are_refused(model, family, conds):
    latent = family.latents()
    _, inversion = invert(model, conds[0], latent)
    area = [[conds[0][0][0], {**conds[0][0][1], "area": (4, 8, 0, 0), "strength": 1.0}]]
    with pytest.raises(ShapeMismatchError, match="remove areas from the conditioning"):
        restore(model, (area, conds[1]), inversion, masks(latent))


@pytest.mark.parametrize("name", ["FLUX.1 dev"], indirect=True)
def test_an_inversion_runs_with_low_embedded_guidance_and_the_restoration_with_the_prompts(model, family):
    prompt = FluxGuidance.execute(family.prompt(), 4.5).result[0]
    seen, watched = [], model.clone()

    def wrapper(executor, *args, **kwargs):
        seen.append(float(args[4][0]))
        return executor(*args, **kwargs)

    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    latent = family.latents()
    _, inversion = invert(watched, prompt, latent)
    restore(watched, (prompt, prompt), inversion, masks(latent), cfg=1.0)
    assert seen == [1.0] * STEPS + [4.5] * STEPS


@pytest.mark.parametrize("name", ["FLUX.1 dev", "SD3.5"], indirect=True)
def test_attention_of_other_packs_still_runs(model, family, conds):
    """Another pack's attention runs inside ours, and so does another pack's replacement of a block."""
    latent, calls = family.latents(), []
    other = model.clone()

    def attention(function, *inputs, **named):
        calls.append("attention")
        return function(*inputs, **named)

    def block(inputs, extra):
        calls.append("block")
        return extra["original_block"](inputs)

    other.model_options["transformer_options"]["optimized_attention_override"] = attention
    other.set_model_patch_replace(block, "dit", "double_block", 1)
    _, inversion = invert(other, conds[0], latent, steps=1)
    assert calls.count("block") == 1 and calls.count("attention") == family.num_layers
    assert torch.equal(inversion.cache.latent(1), invert(model, conds[0], latent, steps=1)[1].cache.latent(1))


def test_a_model_of_another_family_is_refused_by_name():
    model = TINY["Z-Image"].model()
    model.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(UnsupportedModeError, match=r"family Lumina2 \(Linear\).* Qwen-Image, .*Z-Image and Lumina 2"):
        check_restoring_model(model)


def test_a_transformer_that_does_not_predict_a_flow_is_refused_by_name():
    model = TINY["Z-Image"].model()
    model.add_object_patch("model_sampling", comfy.model_sampling.EPS())
    with pytest.raises(UnsupportedModeError, match=r"cannot be inverted here \(EPS\)"):
        check_restoring_model(model)
