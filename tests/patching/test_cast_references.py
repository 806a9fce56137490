"""People by reference pictures: each acts in their own region only, on small models of the host's own classes."""

import comfy.patcher_extension
import comfy.sample
import pytest
import torch
from comfy_extras.nodes_edit_model import ReferenceLatent
from fpga.fpga_core.errors import BaseModelError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.references import apply_references, reading_family
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.shapes import Extent
from tiny_transformers import TEXT_TOKENS, TINY

READ_REFERENCES = ("FLUX.1 dev", "FLUX.2", "Qwen-Image", "Krea 2")
FIRST_PICTURE_TOKEN = {"FLUX.2": 512}
LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
CANVAS = Extent(64, 96)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=READ_REFERENCES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return TINY[name]


@pytest.fixture(scope="module")
def model(name, family):
    return family.model(**({"default_ref_method": "index"} if name == "Krea 2" else {}))


class PixelsAsLatents:
    """An autoencoder whose latents are fixed random features of 8x8 pixels: any picture has its own."""

    def __init__(self, family):
        generator = torch.Generator().manual_seed(9)
        self.family = family
        self.features = torch.randn(family.latent[0], 3 * 64, generator=generator) / 8

    def encode(self, pixels):
        cells = torch.nn.functional.pixel_unshuffle(pixels.movedim(-1, 1) - 0.5, 8)
        latents = torch.einsum("lc,bchw->blhw", self.features, cells)
        return latents.unflatten(1, (-1, *self.family.latent[1:]))


def picture(seed, height=32, width=48):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def member(seed, box=None, **options):
    person = Identity(f"person {seed}", pictures=(picture(seed),))
    return CastMember(person, None if box is None else Region.from_box(box), **options)


def applied(model, family, *members, canvas=CANVAS, **settings):
    texts = family.prompt(1), family.prompt(2)
    return apply_references(
        model,
        *texts,
        cast=Cast(tuple(members), canvas),
        vae=PixelsAsLatents(family),
        **settings,
    )


def sample(model, positive, negative, family, *, cfg=3.0, steps=2):
    latent = torch.zeros_like(family.latents(1))
    noise = comfy.sample.prepare_noise(latent, 5)
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", positive, negative, latent, seed=5)


def attentions(model, family, positive, negative):
    """What each attention of the first call gave, with its block: [(block type, number, output)]."""
    seen, watched = [], model.clone()

    def wrapper(executor, *args, **kwargs):
        options = next(value for value in args if isinstance(value, dict) and "sigmas" in value)
        reached = options.get("optimized_attention_override")

        def watch(attention, *inputs, **named):
            output = reached(attention, *inputs, **named) if reached else attention(*inputs, **named)
            call = named["transformer_options"]
            seen.append((call.get("block_type"), call.get("block_index"), output.clone()))
            return output

        options["optimized_attention_override"] = watch
        return executor(*args, **kwargs)

    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", wrapper)
    sample(watched, positive, negative, family, cfg=1.0, steps=1)
    return [entry for entry in seen if entry[0] is not None]


def test_one_person_in_the_whole_picture_is_the_host_s_own_reference(model, family):
    latent = {"samples": PixelsAsLatents(family).encode(picture(1)[None])}
    prompts = [ReferenceLatent.execute(family.prompt(seed), latent).result[0] for seed in (1, 2)]
    expected = sample(model, *prompts, family)
    plain = sample(model, family.prompt(1), family.prompt(2), family)
    cast = sample(*applied(model, family, member(1)), family)
    assert float((cast - expected).abs().max()) <= 1e-5
    assert float((plain - expected).abs().max()) > 1e-2


@pytest.mark.parametrize("changed", ["left", "right"])
def test_outside_a_region_a_reference_has_no_influence_in_the_first_layer(model, name, family, changed):
    first = FIRST_PICTURE_TOKEN.get(name, TEXT_TOKENS)
    people = {"left": member(1, LEFT), "right": member(2, RIGHT)}
    before = attentions(*_for_watching(model, family, people))
    box = LEFT if changed == "left" else RIGHT
    after = attentions(*_for_watching(model, family, {**people, changed: member(3, box)}))
    patch = family.patch
    width, height = 8 // patch, 12 // patch
    difference = (after[0][2] - before[0][2]).abs().amax(dim=(0, 2))
    grid = difference[first : first + width * height].reshape(height, width)
    inside, outside = (slice(0, width // 2), slice(width // 2, None))[:: 1 if changed == "left" else -1]
    assert float(grid[:, outside].max()) == 0 and float(difference[:first].max()) == 0
    assert float(grid[:, inside].min()) > 0


def _for_watching(model, family, people):
    patched, positive, negative = applied(model, family, *people.values())
    return patched, family, positive, negative


def test_a_joint_attention_is_its_formula(model, name, family):
    """The first layer's output from its own queries, keys and values, with the mask written out."""
    # soft edges: the weights of a column mix what it sees with and without the reference
    region = Region.from_box(Box(0, 0, 0.75, 1), feather=0.4)
    person = Identity("Ann", pictures=(picture(1),))
    patched, positive, negative = applied(model, family, CastMember(person, region, strength=0.7))
    seen, watched = [], patched.clone()

    def wrapper(executor, *args, **kwargs):
        options = next(value for value in args if isinstance(value, dict) and "sigmas" in value)
        reached = options["optimized_attention_override"]

        def watch(attention, q, k, v, heads, *rest, **named):
            output = reached(attention, q, k, v, heads, *rest, **named)
            if named["transformer_options"].get("block_type") is not None:
                seen.append((q, k, v, output))
            return output

        options["optimized_attention_override"] = watch
        return executor(*args, **kwargs)

    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", wrapper)
    sample(watched, positive, negative, family, cfg=1.0, steps=1)
    q, k, v, output = seen[0]
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
    first, patch = FIRST_PICTURE_TOKEN.get(name, TEXT_TOKENS), family.patch
    grid = Extent(8 // patch, 12 // patch)
    last = first + grid.num_cells
    weights = torch.zeros(q.shape[2])
    weights[first:last] = 0.7 * region.rasterise(grid).flatten()

    def softmax(allowed):
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return (logits.masked_fill(~allowed, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)

    tokens = torch.arange(q.shape[2])
    with_reference = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool)
    without = (tokens < last).expand_as(with_reference)
    mixed = weights[:, None] * softmax(with_reference) + (1 - weights)[:, None] * softmax(without)
    hidden = (tokens >= first) & (tokens < last) & (weights == 0)
    mixed[:, last:] = softmax(~hidden.expand_as(with_reference))[:, last:]
    torch.testing.assert_close(output, mixed, atol=1e-5, rtol=1e-5)
    assert float(weights[first:last].min()) > 0 or hidden.any()


def test_nobody_in_a_prompt_leaves_the_model_as_it_was(model, family):
    texts = family.prompt(1), family.prompt(2)
    expected = sample(model, *texts, family)
    patched, *_ = applied(model, family, member(1, LEFT))
    assert torch.equal(sample(patched, *texts, family), expected)
    assert torch.equal(sample(model, *texts, family), expected)


def test_the_order_of_the_cast_changes_nothing(model, family):
    people = member(1, LEFT, number=1), member(2, RIGHT, number=2)
    forwards = sample(*applied(model, family, *people), family)
    assert torch.equal(sample(*applied(model, family, *people[::-1]), family), forwards)


def test_other_references_of_a_prompt_are_seen_by_everyone(model, name, family):
    """The picture that is edited, for example, before the cast's pictures or after them."""
    first = FIRST_PICTURE_TOKEN.get(name, TEXT_TOKENS)
    own = {"samples": PixelsAsLatents(family).encode(picture(7, 16, 16)[None])}

    def run(seed):
        patched, *prompts = applied(model, family, member(seed, LEFT))
        prompts = [ReferenceLatent.execute(prompt, own).result[0] for prompt in prompts]
        return attentions(patched, family, *prompts)[0][2]

    difference = (run(2) - run(1)).abs().amax(dim=(0, 2))
    num_others = (2 // family.patch) ** 2
    assert float(difference[-num_others:].max()) == 0
    assert float(difference[first:].max()) > 0


def test_steps_out_of_range_see_no_reference(model, name, family):
    first = FIRST_PICTURE_TOKEN.get(name, TEXT_TOKENS)
    tokens = slice(first, first + 96 // family.patch**2)
    runs = []
    for seed in (1, 2):
        patched, *prompts = applied(model, family, member(seed), steps=StepRange(0.9, 1.0))
        runs.append(attentions(patched, family, *prompts)[0][2][:, tokens])
    assert torch.equal(*runs)


def test_an_autoencoder_of_another_model_is_refused(model, family):
    with pytest.raises(BaseModelError, match="connect the VAE of the connected model: this one makes latents of 4"):
        apply_references(
            model,
            family.prompt(1),
            family.prompt(2),
            cast=Cast((member(1),), CANVAS),
            vae=PixelsAsLatents(type(family)({}, object, latent=(4,))),
        )


@pytest.mark.parametrize("name", ["SD3.5", "Chroma", "Z-Image", "Krea 2"], indirect=False)
def test_models_that_read_no_references_are_known(name):
    assert reading_family(TINY[name].model()) is None
