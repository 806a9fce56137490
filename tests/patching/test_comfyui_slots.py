"""Slots against the modules of ComfyUI's own UNets."""

import comfy.model_detection
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from diffusers_unets import diffusers_unet
from fpga.fpga_core.identity.attention_layouts import SD15, SDXL, attention_layout
from random_adapters import TINY_UNET_CONFIG
from unet_configs import SD15_UNET, SDXL_UNET, TINY_UNET

CONFIGS = {"tiny": TINY_UNET, "sd15": SD15_UNET, "sdxl": SDXL_UNET}
LAYOUTS = {"tiny": attention_layout("tiny", TINY_UNET), "sd15": SD15, "sdxl": SDXL}


def comfyui_unet(config):
    with torch.device("meta"):
        return UNetModel(**config)


@pytest.mark.parametrize("name", CONFIGS)
def test_slots_are_the_transformer_blocks_of_comfyui(name):
    modules = dict(comfyui_unet(CONFIGS[name]).named_modules())
    paths = {path.removesuffix(".attn2") for path in modules if path.endswith(".attn2")}
    layout = LAYOUTS[name]
    assert {slot.module_path for slot in layout.widths} == paths
    for slot, width in layout.widths.items():
        cross = modules[f"{slot.module_path}.attn2"]
        assert cross.to_k.weight.shape == (width, layout.token_dim)
        assert cross.to_out[0].weight.shape == (width, width)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_real_architectures_are_what_comfyui_detects(name):
    """The tables of the pack follow from the description that ComfyUI derives from a checkpoint's own tensors."""
    state = {f"model.{key}": tensor for key, tensor in comfyui_unet(CONFIGS[name]).state_dict().items()}
    detected = comfy.model_detection.detect_unet_config(state, "model.")
    assert attention_layout(name, detected) == LAYOUTS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_order_is_that_of_diffusers_by_comfyui_own_table(name):
    table = comfy.utils.unet_to_diffusers(CONFIGS[name])  # diffusers' parameter names -> ComfyUI's
    processors = [processor.removesuffix(".processor") for processor in diffusers_unet(name).attn_processors]
    expected = [table[f"{processor}.to_out.0.weight"] for processor in processors]
    found = [
        f"{slot.module_path}.{layer}.to_out.0.weight" for slot in LAYOUTS[name].widths for layer in ("attn1", "attn2")
    ]
    assert found == expected


def test_the_tiny_architecture_of_the_random_files_is_the_tiny_model():
    assert {key: TINY_UNET[key] for key in TINY_UNET_CONFIG} == dict(TINY_UNET_CONFIG)
