"""People by LoRAs: alone, the host's own; together, each in their own region, in one call of the model a step."""

from collections import Counter

import comfy.hooks
import comfy.lora
import comfy.patcher_extension
import comfy.sample
import comfy.sd
import node_helpers
import pytest
import torch
from fpga.fpga_core.errors import UnsupportedModeError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity, PersonLora
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.loras import apply_loras
from fpga.fpga_core.patching.families import find_family
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.shapes import Extent
from fpga.nodes.apply_cast import ApplyCast
from tiny_loras import lora_of
from tiny_models import conditioning, tiny_model, tiny_sdxl
from tiny_transformers import TINY

MODELS = ("SD1.5", "SDXL", "FLUX.1 dev", "Qwen-Image", "Z-Image", "Krea 2", "SD3.5", "Chroma")
CANVAS = Extent(64, 96)
LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
EVERYWHERE = Region.from_mask(torch.ones(12, 8))
"""A region, unlike None, but it leaves nothing out."""


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    made = {"SD1.5": tiny_model, "SDXL": tiny_sdxl}
    return made[name]() if name in made else TINY[name].model()


@pytest.fixture(scope="module")
def prompts(name):
    unets = name in ("SD1.5", "SDXL")
    return tuple(conditioning(seed) if unets else TINY[name].prompt(seed) for seed in (1, 2))


@pytest.fixture(scope="module")
def latent(name):
    return torch.zeros(1, 4, 12, 8) if name in ("SD1.5", "SDXL") else torch.zeros_like(TINY[name].latents(1))


def member(model, seed, region=None, **options):
    region = Region.from_box(region) if isinstance(region, Box) else region
    return CastMember(Identity(f"person {seed}", lora=lora_of(model, seed)), region, **options)


def applied(model, prompts, *members, **settings):
    return apply_loras(model, *prompts, cast=Cast(tuple(members), CANVAS), **settings)


def sample(model, positive, negative, latent, cfg=3.0, steps=2):
    noise = comfy.sample.prepare_noise(latent, 5)
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", positive, negative, latent, seed=5)


@pytest.fixture(scope="module")
def expected(model, prompts, latent):
    """What the host's own LoRA gives, loaded at 0.8."""
    loaded, _ = comfy.sd.load_lora_for_models(model, None, dict(lora_of(model, 1).weights), 0.8, 0)
    return sample(loaded, *prompts, latent)


def test_one_person_in_the_whole_picture_is_the_host_s_lora(model, prompts, latent, expected):
    assert torch.equal(sample(*applied(model, prompts, member(model, 1)), latent), expected)
    assert float((sample(model, *prompts, latent) - expected).abs().max()) > 1e-2


def test_a_region_that_leaves_nothing_out_is_the_host_s_lora(model, prompts, latent, expected):
    cast = sample(*applied(model, prompts, member(model, 1, EVERYWHERE)), latent)
    assert float((cast - expected).abs().max()) <= 1e-5 * max(1, float(expected.abs().max()))


def test_people_who_are_absent_or_in_no_prompt_change_nothing(model, prompts, latent):
    plain = sample(model, *prompts, latent)
    patched, *_ = applied(model, prompts, member(model, 1, LEFT), member(model, 2, RIGHT))
    assert torch.equal(sample(patched, *prompts, latent), plain)
    assert torch.equal(sample(model, *prompts, latent), plain)
    absent = applied(model, prompts, member(model, 1, LEFT), strength=0.0)
    assert torch.equal(sample(*absent, latent), plain)


def calls_of(model, positive, negative, latent, **settings):
    calls, watched = [], model.clone()

    def wrapper(executor, *args, **kwargs):
        calls.append(len(args[0]))
        return executor(*args, **kwargs)

    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", wrapper)
    sample(watched, positive, negative, latent, steps=1, **settings)
    return calls


@pytest.mark.parametrize("name", ["SD1.5", "Z-Image"], indirect=True)
def test_two_people_cost_one_call_a_step_and_three_by_the_host_s_masked_hooks(model, prompts, latent):
    people = member(model, 1, LEFT), member(model, 2, RIGHT)
    assert calls_of(*applied(model, prompts, *people), latent) == [2]
    positive = list(prompts[0])
    for person in people:
        hooks = comfy.hooks.create_hook_lora(dict(person.identity.lora.weights), 0.8, 0)
        mask = person.region.rasterise(CANVAS)[None]
        masked = {"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": False, "hooks": hooks}
        positive += node_helpers.conditioning_set_values(prompts[0], masked)
    assert len(calls_of(model, positive, prompts[1], latent)) == 3


@pytest.mark.parametrize("name", ["SD1.5", "FLUX.1 dev", "Z-Image", "Qwen-Image"], indirect=True)
def test_outside_a_region_a_layer_of_the_picture_is_as_it_was(model, name, prompts, latent):
    """The first layer that reads the picture: only its tokens in the region differ from the plain model's."""
    path = {
        "SD1.5": "input_blocks.0.0", "FLUX.1 dev": "img_in", "Z-Image": "x_embedder", "Qwen-Image": "img_in",
    }[name]  # fmt: skip

    def first(patched, *texts):
        seen, watched = [], patched.clone()

        def wrapper(executor, *args, **kwargs):
            layer = executor.class_obj.get_submodule(path)
            handle = layer.register_forward_hook(lambda *call: seen.append(call[2].clone()))
            try:
                return executor(*args, **kwargs)
            finally:
                handle.remove()

        watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", wrapper)
        sample(watched, *texts, latent, cfg=1.0, steps=1)
        return seen[0]

    change = first(*applied(model, prompts, member(model, 1, LEFT))) - first(model, *prompts)
    if change.ndim == 3:
        change = change[:, :24].movedim(1, -1).unflatten(-1, (6, 4))
    change, middle = change.abs().sum(dim=(0, 1)), change.shape[-1] // 2
    assert float(change[:, middle:].max()) == 0 and float(change[:, :middle].min()) > 0


def test_the_order_of_people_hardly_matters_and_each_acts(model, prompts, latent):
    people = member(model, 1, LEFT), member(model, 2, RIGHT)
    both = sample(*applied(model, prompts, *people), latent)
    size = float(both.abs().max())
    swapped = sample(*applied(model, prompts, *people[::-1]), latent)
    assert float((swapped - both).abs().max()) <= 1e-4 * size
    for person in people:
        alone = sample(*applied(model, prompts, person), latent)
        assert float((alone - both).abs().max()) > 1e-3 * size


@pytest.mark.parametrize("name", ["SD1.5", "Z-Image"], indirect=True)
def test_a_lora_can_rest_in_some_steps(model, prompts, latent):
    whole = applied(model, prompts, member(model, 1), steps=StepRange(0.0, 0.5))
    assert not torch.equal(sample(*whole, latent), sample(model, *prompts, latent))
    never = applied(model, prompts, member(model, 1), steps=StepRange(1.0, 1.0))
    assert torch.equal(sample(*never, latent), sample(model, *prompts, latent))


@pytest.mark.parametrize("name", ["SD1.5"], indirect=True)
def test_the_node_chooses_the_lora_of_the_right_base(model, prompts, latent):
    cast = Cast((member(model, 1, LEFT),), CANVAS)
    node = ApplyCast.execute(model, *prompts, cast=cast)
    assert node.ui["text"] == ("#1 person 1: LoRA",)
    assert torch.equal(sample(*node.args, latent), sample(*applied(model, prompts, *cast.members), latent))
    other = CastMember(Identity("Ann", lora=PersonLora("x", {"lora_unet_x.lora_up.weight": torch.ones(1, 1)})))
    with pytest.raises(UnsupportedModeError, match="^use the base that the LoRA was trained on"):
        ApplyCast.execute(model, *prompts, cast=Cast((other,), CANVAS))


@pytest.mark.parametrize("name", ["SD1.5"], indirect=True)
def test_full_weights_are_refused_in_a_region(model, prompts):
    weight = model.model.diffusion_model.input_blocks[0][0].weight
    full = PersonLora("full.safetensors", {"diffusion_model.input_blocks.0.0.diff": torch.ones_like(weight)})
    with pytest.raises(UnsupportedModeError, match=r"'full.safetensors' has layers that are not of low rank"):
        applied(model, prompts, CastMember(Identity("Ann", lora=full), Region.from_box(LEFT)))


@pytest.mark.parametrize("name", ["SD1.5"], indirect=True)
def test_a_file_is_read_once(model, prompts, monkeypatch):
    read, load = [], comfy.lora.load_lora
    monkeypatch.setattr(comfy.lora, "load_lora", lambda *args, **named: read.append(1) or load(*args, **named))
    ApplyCast.execute(model, *prompts, cast=Cast((member(model, 1, LEFT), member(model, 2, RIGHT)), CANVAS))
    assert len(read) == 2


@pytest.mark.parametrize("name", ["SD1.5", "FLUX.1 dev", "Z-Image"], indirect=True)
def test_weights_are_spread_over_tokens_once_a_call_and_not_in_each_layer(model, prompts, latent, monkeypatch):
    family = type(find_family(model))
    patched, *texts = applied(model, prompts, member(model, 1, LEFT), member(model, 2, RIGHT))
    first = sample(patched, *texts, latent, steps=1)  # finds out which layers have tokens of the picture
    counts, spread = Counter(), family.spread

    def counted(*args, num_tokens, **named):
        counts[num_tokens] += 1
        return spread(*args, num_tokens=num_tokens, **named)

    monkeypatch.setattr(family, "spread", counted)
    assert torch.equal(sample(patched, *texts, latent, steps=1), first)
    assert counts and set(counts.values()) == {1}
