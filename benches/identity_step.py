"""A step of a full-size SD1.5 at 512x512 with 0 to 8 identities: in one product, or with one attention call each.

All alternatives run in turn in one process, so that a machine that slows down slows all of them. Ratios are relative to
the bare step of the same round. The peers' way has one attention call over the whole picture and one mask per identity
in each layer, as in a chain of IPAdapter-style nodes. Its tokens are projected only once here, which favours it over
the peers' code.
"""

import torch
from _models import random_model
from _report import arguments, in_turn, ratio_rows, report
from _steps import step_seconds
from comfy.ldm.modules.attention import optimized_attention
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.unet import cross_attention_layers
from fpga.fpga_core.shapes import Extent
from random_adapters import faceid, random_identity, read_adapter
from tiny_models import tiny_model
from unet_configs import SD15_UNET

NUM_PEOPLE = (1, 2, 4, 8)
COVERED = 0.1
"""The part of the picture that the small regions cover together."""


def small_regions(num_people: int) -> list[Region]:
    """Returns equal square regions side by side, which cover COVERED of the picture together."""
    side = (COVERED / num_people) ** 0.5
    spots = [(column / 4 + 0.02, row / 2 + 0.1) for row in range(2) for column in range(4)]
    return [Region.from_box(Box(x, y, x + side, y + side)) for x, y in spots[:num_people]]


def cast_of(regions: list[Region | None]) -> Cast:
    people = (CastMember(random_identity(seed=seed), region) for seed, region in enumerate(regions))
    return Cast(tuple(people), Extent(512, 512))


def peers_way(model, adapter, cast: Cast, size: int):
    """Returns a clone of the model with one attention call, one mask and one sum per identity in every layer."""
    tokens = [adapter.tokens(member.identity) for member in cast.members]
    null_tokens = [adapter.null_tokens(member.identity) for member in cast.members]
    masks = cast.rasterise(Extent(size, size))[:, None]
    dtype = model.model.get_dtype_inference()
    patched = model.clone()
    for slot in cross_attention_layers(model.model.diffusion_model):
        pairs = [torch.cat([null, token]) for null, token in zip(null_tokens, tokens, strict=True)]
        key, value = adapter.projections[slot]
        projected = [((pair @ key.T).to(dtype), (pair @ value.T).to(dtype)) for pair in pairs]

        def attention(q, k, v, extra, projected=projected):
            out = optimized_attention(q, k, v, extra["n_heads"])
            height, width = extra["activations_shape"][-2:]
            for (keys, values), mask in zip(projected, masks, strict=True):
                term = optimized_attention(q, keys, values, extra["n_heads"])
                resized = torch.nn.functional.interpolate(mask[None], (height, width), mode="bilinear")
                out = out + term * resized.flatten()[None, :, None].to(q)
            return out

        patched.set_model_attn2_replace(attention, slot.block, slot.number, slot.index)
    return patched


def main() -> None:
    options = arguments(__doc__)
    model, size, width = (tiny_model(), 16, 64) if options.tiny else (random_model(SD15_UNET), 64, 768)
    adapter = read_adapter(faceid("tiny" if options.tiny else "sd15", lora_rank=0))
    texts = tuple([[torch.randn(1, 77, width), {}]] for _ in range(2))
    noise = torch.randn(1, 4, size, size)
    alternatives = {"no identity": (model, *texts)}
    for num_people in NUM_PEOPLE:
        small, whole = cast_of(small_regions(num_people)), cast_of([None] * num_people)
        alternatives[f"{num_people} in {COVERED:.0%}"] = apply_cast(model, *texts, adapter=adapter, cast=small)
        alternatives[f"{num_people} in the whole picture"] = apply_cast(model, *texts, adapter=adapter, cast=whole)
        alternatives[f"{num_people} the peers' way"] = (peers_way(model, adapter, small, size), *texts)
    for run in alternatives.values():  # a warm-up each
        step_seconds(*run, noise)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in alternatives}
    for name in in_turn(alternatives, options.rounds):
        measured[name].append(step_seconds(*alternatives[name], noise))
    clock, processor = (
        ratio_rows({name: [pair[which] for pair in pairs] for name, pairs in measured.items()}, "no identity")
        for which in (0, 1)
    )
    # Processor time is more informative than the clock if other programs share the machine. With a GPU, it means
    # nothing.
    for row, other in zip(clock, processor, strict=True):
        row["by processor time"] = other["over no identity"]
    dtype = str(model.model.get_dtype()).removeprefix("torch.")
    report(f"A step at {8 * size}x{8 * size}, {dtype}, {torch.get_num_threads()} threads", clock, options.json)


if __name__ == "__main__":
    main()
