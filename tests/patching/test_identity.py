"""What applying a cast promises beside Eq. 1: what it leaves alone, bit for bit, and what it refuses."""

import gc
import logging
import re
import threading
from dataclasses import replace

import comfy.hooks
import comfy.lora
import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from eq1_reference import both, eq1_on, relative_error
from fpga.fpga_core.errors import BaseModelError, InvalidInputError, ShapeMismatchError, UnsupportedModeError
from fpga.fpga_core.identity.cast import Cast
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.layer_emphasis import LayerEmphasis
from fpga.fpga_core.identity.recognisers import AURAFACE
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.attention import CastRun, IdentityAttention
from fpga.fpga_core.patching.cast.encoding import encode_cast
from fpga.fpga_core.patching.cast.slots import claim_slots
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.schedule import StepRange
from fpga.fpga_core.patching.unet import cross_attention_layers
from fpga.fpga_core.shapes import Extent
from random_branches import random_branch
from tiny_identities import TOKEN_DIM, cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

LEFT, RIGHT = (0.0, 0.1, 0.45, 0.8), (0.55, 0.0, 1.0, 1.0)
DUO = cast(member(1, LEFT), member(2, RIGHT))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return conditioning(1), conditioning(2)


@pytest.fixture(scope="module")
def untouched(model, texts):
    return sample(model, *texts, steps=2)


# What changes nothing, bit for bit


@pytest.mark.parametrize(
    "people, strength",
    [(cast(), 1.0), (DUO, 0.0), (cast(member(1, LEFT, strength=0.0), member(2, strength=0.0)), 1.0)],
    ids=["nobody", "strength 0", "members of strength 0"],
)
def test_nobody_acting_gives_back_what_came(model, texts, people, strength):
    patched, *conditionings = apply_cast(
        model, *texts, adapter=tiny_adapter(model, lora_rank=2), cast=people, strength=strength
    )
    assert patched is model
    assert conditionings == list(texts)


def test_a_member_of_strength_0_is_absent(model, texts):
    """Also where its region overlaps another's, which it then does not share."""
    adapter, ghost = tiny_adapter(model), member(3, strength=0.0)
    alone = sample(*apply_cast(model, *texts, adapter=adapter, cast=DUO), steps=2)
    beside = sample(*apply_cast(model, *texts, adapter=adapter, cast=cast(*DUO.members, ghost)), steps=2)
    assert torch.equal(alone, beside)


@pytest.mark.parametrize("has_own_projections", [True, False])
def test_order_and_duplicates_change_no_bit(model, texts, has_own_projections):
    adapter = tiny_adapter(model if has_own_projections else None)
    crowd = [member(1, LEFT), member(2, (0.3, 0.0, 1.0, 1.0), strength=0.7), member(3, (0.0, 0.3, 1.0, 1.0)), member(4)]
    expected = sample(*apply_cast(model, *texts, adapter=adapter, cast=cast(*crowd)), steps=2)
    for order in ([3, 1, 0, 2], [0, 1, 2, 3, 1], [2, 2, 3, 0, 0, 1]):
        people = cast(*(replace(crowd[i]) for i in order))
        assert torch.equal(sample(*apply_cast(model, *texts, adapter=adapter, cast=people), steps=2), expected)


def test_a_region_of_ones_is_the_whole_picture(model, texts):
    adapter, whole = tiny_adapter(model), member(1)
    ones = replace(whole, region=Region.from_mask(torch.ones(37, 53)))
    a, b = (
        sample(*apply_cast(model, *texts, adapter=adapter, cast=people), steps=2, size=(15, 17))
        for people in (cast(one, canvas=Extent(15, 17)) for one in (whole, ones))
    )
    assert torch.equal(a, b)


def test_a_run_outside_the_step_range_is_the_untouched_model(model, texts, untouched):
    applied = apply_cast(
        model, *texts, adapter=tiny_adapter(model), cast=DUO, steps=StepRange(0.4, 0.6)
    )  # two steps: 0 and 1
    assert torch.equal(sample(*applied, steps=2), untouched)


def test_the_model_before_the_node_is_untouched_after_runs_errors_and_interrupts(texts):
    model = tiny_model()
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    plain = sample(model, *texts, steps=2)
    adapter = tiny_adapter(model, lora_rank=2)
    applied = apply_cast(model, *texts, adapter=adapter, cast=DUO)
    first = sample(*applied, steps=2)

    def fail(error):
        def callback(step, *_):
            raise error

        noise = torch.zeros(1, 4, 16, 16)
        with pytest.raises(type(error)):
            comfy.samplers.sample(
                applied[0],
                noise,
                applied[1],
                applied[2],
                3.0,
                model.load_device,
                comfy.samplers.ksampler("euler"),
                torch.tensor([10.0, 5.0, 1.0, 0.0]),
                latent_image=noise,
                callback=callback,
            )

    for error in (RuntimeError("out of luck"), comfy.model_management.InterruptProcessingException()):
        fail(error)
        assert torch.equal(sample(model, *texts, steps=2), plain)
        assert torch.equal(sample(*applied, steps=2), first)
        assert torch.equal(sample(model, *texts, steps=2), plain)
    comfy.model_management.unload_all_models()
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


def test_applying_leaves_no_trace_on_the_model_or_the_conditioning_that_came_in(texts):
    model = tiny_model()
    before = [[(entry[0], dict(entry[1])) for entry in text] for text in texts]
    apply_cast(model, *texts, adapter=tiny_adapter(model, lora_rank=2), cast=DUO)
    assert (model.wrappers, model.callbacks, model.patches, model.attachments) == ({}, {}, {}, {})
    assert model.model_options == {"transformer_options": {}}
    for entries, (entry,) in zip(before, texts, strict=True):
        assert entries[0][0] is entry[0]
        assert {name: id(value) for name, value in entries[0][1].items()} == {n: id(v) for n, v in entry[1].items()}


def test_a_run_leaves_nothing_behind(model, texts):
    patched, *conditionings = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    sample(patched, *conditionings, steps=1)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) in (CastRun, IdentityAttention)]
    assert patched.model_options == {"transformer_options": {}}


def test_clones_share_the_cast_and_nothing_else(model, texts):
    patched, *conditionings = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    expected = sample(patched, *conditionings, steps=1)
    clone = patched.clone()
    again, *more = apply_cast(clone, *conditionings, adapter=tiny_adapter(seed=4), cast=cast(member(5)))
    assert not torch.equal(sample(again, *more, steps=1), expected)
    for either in (patched, clone):
        assert torch.equal(sample(either, *conditionings, steps=1), expected)


# Sharing attention slots with other packs


class ListReplace:
    """The IPAdapter/InstantID/PuLID family's slot: callbacks that each add a term, `add` for those that come later."""

    def __init__(self, callback, **kwargs):
        self.callbacks = [(callback, kwargs)]

    def add(self, callback, **kwargs):
        self.callbacks.append((callback, kwargs))

    def __call__(self, q, k, v, extra_options):
        out = optimized_attention(q, k, v, extra_options["n_heads"])
        for callback, kwargs in self.callbacks:
            out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out


def apply_peer(model, tokens, num_keys=3, weight=0.5):
    """A minimal IPAdapter-plus: same keys for its slots, same `add` where a slot is taken."""
    model = model.clone()
    options = model.model_options["transformer_options"] = dict(model.model_options["transformer_options"])
    replacements = options["patches_replace"] = dict(options.get("patches_replace", {}))
    attn2 = replacements["attn2"] = dict(replacements.get("attn2", {}))
    layers = cross_attention_layers(model.model.diffusion_model)

    def callback(out, q, k, v, extra_options, slot):
        keys, values = layers[slot].to_k(tokens), layers[slot].to_v(tokens)
        batch = (len(q), -1, -1)
        return weight * optimized_attention(q, keys.expand(batch), values.expand(batch), extra_options["n_heads"])

    for slot in layers:
        key = tuple(slot)[:num_keys]
        if key in attn2:
            attn2[key].add(callback, slot=slot)
        else:
            attn2[key] = ListReplace(callback, slot=slot)
    return model


@pytest.mark.parametrize("num_keys", [2, 3], ids=["(block, number)", "(block, number, index)"])
def test_peers_stack_in_either_order(model, texts, num_keys):
    adapter = tiny_adapter(model)
    tokens = torch.randn(1, 5, TOKEN_DIM, generator=torch.Generator().manual_seed(8))
    peer_alone = sample(apply_peer(model, tokens, num_keys), *texts, steps=2)
    ours_alone = sample(*apply_cast(model, *texts, adapter=adapter, cast=DUO), steps=2)

    ours, *conditionings = apply_cast(model, *texts, adapter=adapter, cast=DUO)
    peer_last = sample(apply_peer(ours, tokens, num_keys), *conditionings, steps=2)
    ours_last = sample(*apply_cast(apply_peer(model, tokens, num_keys), *texts, adapter=adapter, cast=DUO), steps=2)
    assert torch.equal(peer_last, ours_last)
    for alone in (peer_alone, ours_alone):
        assert (ours_last - alone).norm() / alone.norm() > 1e-3
    assert torch.equal(sample(ours, *conditionings, steps=2), ours_alone)
    assert torch.equal(sample(apply_peer(model, tokens, num_keys), *texts, steps=2), peer_alone)


def test_the_standing_owner_of_a_slot_is_the_hosts_choice():
    """`(block, number, index)` beats `(block, number)`, and what nobody owns is the host's own attention."""
    unet = tiny_model().model.diffusion_model
    one, two, three, *_ = slots = list(cross_attention_layers(unet))
    standing = {tuple(one): "index", tuple(one)[:2]: "number", tuple(two)[:2]: "number", ("input", 99): "other"}
    options = {"patches_replace": {"attn1": {"a": "b"}, "attn2": standing}, "sigmas": 1}
    claimed = claim_slots(options, slots, lambda previous, slot: (previous, slot))
    attn2 = claimed["patches_replace"]["attn2"]
    assert attn2[tuple(one)] == ("index", one)
    assert attn2[tuple(two)] == ("number", two)
    assert attn2[tuple(three)][0].__name__ == "host_attention"
    assert attn2["input", 99] == "other"
    assert claimed["patches_replace"]["attn1"] == {"a": "b"}
    assert options["patches_replace"]["attn2"] is standing
    assert len(standing) == 4


# Shared projections: the layer's own weights, once per run


def projected_tokens(model, run):
    """How often each cross attention projects something that is not the text."""
    counts = {}

    def count(module, inputs, output, slot):
        counts[slot] = counts.get(slot, 0) + (inputs[0].shape[1] != 7)

    layers = cross_attention_layers(model.model.diffusion_model)
    hooks = [
        layer.to_k.register_forward_hook(lambda *args, slot=slot: count(*args, slot)) for slot, layer in layers.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return set(counts.values())


def test_tokens_are_projected_once_per_run(model, texts):
    applied = apply_cast(model, *texts, adapter=tiny_adapter(), cast=DUO)
    assert projected_tokens(model, lambda: sample(*applied, steps=4)) == {1}
    assert projected_tokens(model, lambda: [sample(*applied, steps=2), sample(*applied, steps=2)]) == {2}


def test_shared_projections_are_the_folded_ones(model, texts):
    """Against the same model with the fold written into its weights by hand."""
    branch = random_branch(model.model.diffusion_model)
    by_hand = tiny_model()
    with torch.no_grad():
        for name, weight in by_hand.model.diffusion_model.named_parameters():
            if name in branch.weights:
                weight.copy_(0.7 * weight + 0.4 * branch.weights[name])
    adapter = tiny_adapter()
    expected = sample(*apply_cast(by_hand, *texts, adapter=adapter, cast=DUO), steps=2)
    actual = sample(
        *apply_cast(fold_branch(model, branch, alpha=0.7, beta=0.4), *texts, adapter=adapter, cast=DUO), steps=2
    )
    assert (actual - expected).norm() / expected.norm() < 1e-5


def test_shared_projections_in_low_vram_carry_the_fold(model):
    """Weights stay off the device and are folded at each cast: the layers' own call must be what projects."""
    branch, adapter = random_branch(model.model.diffusion_model), tiny_adapter()
    folded = fold_branch(model, branch, alpha=0.7, beta=0.4)
    carried, _ = encode_cast(adapter, DUO, 1.0)
    layers = cross_attention_layers(model.model.diffusion_model)
    folded.load(torch.device("cpu"), lowvram_model_memory=1)
    try:
        assert model.model.lowvram_patch_counter > 0
        run = CastRun(parts=(carried,), has_own_projections=False, emphasis=LayerEmphasis.UNIFORM, is_constant=True)
        for slot, layer in layers.items():
            projected = run.key_value(slot, layers, torch.zeros(1, 1, 1))
            for name, actual in zip(("to_k", "to_v"), projected, strict=True):
                delta = branch.weights[f"{slot.module_path}.attn2.{name}.weight"]
                expected = carried.tokens @ (0.7 * getattr(layer, name).weight + 0.4 * delta).T
                torch.testing.assert_close(actual, expected)
    finally:
        folded.detach()


def test_a_scheduled_lora_reaches_the_identities_too(model, texts):
    """A LoRA hook on the positive only: its weights change between calls, so nothing projected may be kept."""
    adapter, positive, negative = tiny_adapter(), conditioning(1), conditioning(2)
    generator = torch.Generator().manual_seed(4)
    lora = {
        f"diffusion_model.{slot.module_path}.attn2.to_v.{name}.weight": torch.randn(*shape, generator=generator)
        for slot, layer in cross_attention_layers(model.model.diffusion_model).items()
        for name, shape in (("lora_up", (layer.to_v.out_features, 1)), ("lora_down", (1, TOKEN_DIM)))
    }
    hooks = comfy.hooks.create_hook_lora(lora, strength_model=0.5, strength_clip=0)
    positive[0][1]["hooks"] = hooks
    with eq1_on(model.model.diffusion_model, both(positive, negative, adapter, DUO, Extent(16, 16))):
        expected = sample(model, positive, negative, steps=3)
    actual = sample(*apply_cast(model, positive, negative, adapter=adapter, cast=DUO), steps=3)
    assert relative_error(actual, expected) < 1e-4


def test_runs_in_threads_do_not_meet():
    """One model for each thread, as the host does with several GPUs; one adapter and cast for all."""
    models, adapter = [tiny_model(seed=seed) for seed in range(3)], tiny_adapter()
    texts = conditioning(1), conditioning(2)
    applied = [apply_cast(model, *texts, adapter=adapter, cast=DUO) for model in models]
    alone = [sample(*one, steps=3) for one in applied]
    together = [None] * len(models)

    def run(i):
        together[i] = sample(*applied[i], steps=3)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


# What is refused, and what is only warned of


def test_conditioning_with_a_cast_on_a_model_without_it_is_refused(model, texts):
    _, positive, negative = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    with pytest.raises(InvalidInputError, match="connect the model output of the same Apply Cast"):
        sample(model, positive, negative, steps=1)
    other, *_ = apply_cast(model, *texts, adapter=tiny_adapter(seed=2), cast=DUO)
    with pytest.raises(InvalidInputError, match="the same Apply Cast node"):
        sample(other, positive, negative, steps=1)


def test_patches_that_merge_tokens_are_named(model, texts):
    patched, positive, negative = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    patched.set_model_attn2_patch(lambda n, context, value, extra: (n[:, ::2], context, value))
    with pytest.raises(
        ShapeMismatchError, match=re.escape("a 16x16 grid gets 128 queries instead of 256; a patch that")
    ):
        sample(patched, positive, negative, steps=1)


def test_packs_that_cut_the_latent_into_tiles_are_named(model, texts):
    patched, positive, negative = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)

    def tile(apply_model, arguments):
        return apply_model(arguments["input"][..., :8, :8], arguments["timestep"], **arguments["c"])

    patched.set_model_unet_function_wrapper(tile)
    with pytest.raises(ShapeMismatchError, match="samples in tiles"):
        sample(patched, positive, negative, steps=1)


def test_an_adapter_for_another_model_is_refused(texts):
    wide = tiny_model(model_channels=64)
    with pytest.raises(
        BaseModelError, match="7 of 7 cross-attention layers; input block 1.0 is 32 in the model and 64"
    ):
        apply_cast(tiny_model(), *texts, adapter=tiny_adapter(wide), cast=DUO)
    shallow = tiny_adapter(tiny_model(transformer_depth_middle=0))
    with pytest.raises(BaseModelError, match="1 of 7 .* middle block 0.0 is 64 in the model and absent in the adapter"):
        apply_cast(tiny_model(), *texts, adapter=shallow, cast=DUO)
    with pytest.raises(BaseModelError, match="64 wide and shares the model's projections, but these read 96"):
        apply_cast(tiny_model(context_dim=96), *texts, adapter=tiny_adapter(), cast=DUO)


def test_a_lora_without_its_layers_is_refused(model, texts):
    adapter = tiny_adapter(model, lora_rank=2)
    strange = replace(adapter, lora={"input_blocks.77.1.attn": next(iter(adapter.lora.values()))})
    with pytest.raises(BaseModelError, match="does not have 1 of the 1 layers .* diffusion_model.input_blocks.77"):
        apply_cast(model, *texts, adapter=strange, cast=DUO)


def test_models_that_are_no_unet_are_refused(texts):
    class Transformer(torch.nn.Module):
        pass

    model = tiny_model()
    model.add_object_patch("diffusion_model", Transformer())
    with pytest.raises(UnsupportedModeError, match="UNet"):
        apply_cast(model, *texts, adapter=tiny_adapter(), cast=DUO)


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(model, texts, strength):
    with pytest.raises(InvalidInputError, match="finite"):
        apply_cast(model, *texts, adapter=tiny_adapter(), cast=DUO, strength=strength)


def test_a_damaged_adapter_is_refused(model, texts):
    adapter = tiny_adapter(model)
    with torch.no_grad():
        adapter.resampler.norm.weight[3] = float("nan")
    with pytest.raises(InvalidInputError, match="makes for 'person 1' are not finite"):
        apply_cast(model, *texts, adapter=adapter, cast=DUO)


def test_a_model_without_a_middle_block(texts):
    model, with_middle = tiny_model(transformer_depth_middle=-2), tiny_adapter(tiny_model())
    assert model.model.diffusion_model.middle_block is None
    applied = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=DUO)
    assert len(applied[0].wrappers) == 2
    with pytest.raises(BaseModelError, match="middle block 0.0 is absent in the model"):
        apply_cast(model, *texts, adapter=with_middle, cast=DUO)


def test_a_missing_repcontrolnet_is_warned_of(model, texts, caplog):
    branch = random_branch(model.model.diffusion_model)
    adapter = replace(tiny_adapter(), branch_hash=branch.header.branch_hash)
    with caplog.at_level(logging.WARNING, "fpga"):
        apply_cast(model, *texts, adapter=adapter, cast=DUO)
    assert "connect Apply RepControlNet" in caplog.text
    assert branch.header.branch_hash[:12] in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fpga"):
        apply_cast(fold_branch(model, branch), *texts, adapter=adapter, cast=DUO)
    assert not caplog.records


def test_an_identity_without_what_the_adapter_reads_is_refused(model, texts):
    stranger = replace(member(1, LEFT), identity=Identity("stranger", {AURAFACE: torch.ones(1, 512)}))
    with pytest.raises(InvalidInputError, match="stranger"):
        apply_cast(model, *texts, adapter=tiny_adapter(), cast=Cast((stranger,), Extent(64, 64)))
