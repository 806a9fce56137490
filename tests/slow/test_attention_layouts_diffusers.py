"""The layers that the numbers in adapter files mean, compared with diffusers' own list of attention processors."""

import re

import pytest
import torch
from diffusers_unets import DIFFUSERS_CONFIGS, diffusers_unet
from fpga.fpga_core.identity.attention_layouts import SD15, SDXL, attention_layout
from random_adapters import TINY_UNET_CONFIG, faceid, flat, instantid, plus_face, read_adapter

LAYOUTS = {"sd15": SD15, "sdxl": SDXL, "tiny": attention_layout("tiny", TINY_UNET_CONFIG)}


def comfyui_path(name, layers_per_block):
    """A diffusers processor's module in ComfyUI's naming, by the rule of the original checkpoints' converter."""
    place, transformer, attention = re.fullmatch(
        r"(.*)\.attentions\.(.*)\.(attn[12])\.processor", name
    ).groups()  # e.g. "down_blocks.1", "0.transformer_blocks.0", "attn2"
    number, inner = transformer.split(".", 1)
    if place == "mid_block":
        return f"middle_block.1.{inner}.{attention}"
    side, level = place.split(".")
    if side == "down_blocks":
        return f"input_blocks.{1 + int(level) * (layers_per_block + 1) + int(number)}.1.{inner}.{attention}"
    return f"output_blocks.{int(level) * (layers_per_block + 1) + int(number)}.1.{inner}.{attention}"


@pytest.mark.parametrize("architecture", DIFFUSERS_CONFIGS)
def test_every_processor_is_where_diffusers_lists_it(architecture):
    unet, layout = diffusers_unet(architecture), LAYOUTS[architecture]
    expected = [comfyui_path(name, unet.config.layers_per_block) for name in unet.attn_processors]
    found = [f"{slot.module_path}.{attention}" for slot in layout.widths for attention in ("attn1", "attn2")]
    assert found == expected
    modules = dict(unet.named_modules())
    widths = [modules[name.removesuffix(".processor")].to_q.out_features for name in unet.attn_processors]
    assert [width for width in layout.widths.values() for _ in range(2)] == widths
    assert layout.token_dim == unet.config.cross_attention_dim


@pytest.mark.parametrize("build", [plus_face, instantid])
def test_projections_are_those_that_diffusers_loads(build):
    """diffusers' own loader gives each block of a tiny UNet the same two matrices as the pack."""
    file, unet = build("tiny"), diffusers_unet("tiny", "cpu")
    unet._load_ip_adapter_weights([file], low_cpu_mem_usage=False)
    adapter = read_adapter(flat(file))
    cross = [processor for name, processor in unet.attn_processors.items() if name.endswith("attn2.processor")]
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    theirs = {comfyui_path(name, 1): processor for name, processor in zip(names, cross, strict=True)}
    assert len(adapter.projections) == len(theirs) == 7
    for slot, (key, value) in adapter.projections.items():
        processor = theirs[f"{slot.module_path}.attn2"]
        assert torch.equal(processor.to_k_ip[0].weight, key)
        assert torch.equal(processor.to_v_ip[0].weight, value)


def test_the_lora_is_the_one_that_diffusers_loads():
    file, unet = faceid("tiny", lora_rank=3), diffusers_unet("tiny")
    theirs = unet._load_ip_adapter_loras([file])[0]  # "unet.<processor>.to_q_lora.down.weight" -> tensor
    lora = read_adapter(file).lora
    assert len(theirs) == 2 * len(lora) == 2 * 7 * 2 * 4
    for name in unet.attn_processors:
        for part, layer in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0")):
            down, up = lora[f"{comfyui_path(name, 1)}.{layer}"]
            assert torch.equal(theirs[f"unet.{name}.to_{part}_lora.down.weight"], down)
            assert torch.equal(theirs[f"unet.{name}.to_{part}_lora.up.weight"], up)
