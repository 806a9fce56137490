"""ControlNets of transformer families, with seeded random weights, built as ComfyUI's loaders build published ones."""

import comfy.cldm.mmdit
import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.ldm.qwen_image.controlnet
import comfy.model_management
import comfy.ops
import torch
from tiny_models import fill_random
from tiny_transformers import FLUX, QWEN_IMAGE, SD3

NETWORKS = {
    "FLUX.1 dev": (
        comfy.ldm.flux.controlnet.ControlNetFlux,
        {**FLUX, "latent_input": True, "num_union_modes": 3, "control_latent_channels": 16},
        comfy.latent_formats.Flux,
        ["y", "guidance"],
    ),
    "Qwen-Image": (
        comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel,
        QWEN_IMAGE,
        comfy.latent_formats.Wan21,
        [],
    ),
    "SD3.5": (
        comfy.cldm.mmdit.ControlNet,
        {**SD3, "num_blocks": 2, "control_latent_channels": 16},
        comfy.latent_formats.SD3,
        ["y"],
    ),
}
"""InstantX's union ControlNet for FLUX.1 and its one for Qwen-Image, and the first layout of those for SD3."""


def tiny_flow_controlnet(name: str, seed: int = 20) -> comfy.controlnet.ControlNet:
    network, config, latent_format, extra_conds = NETWORKS[name]
    device = comfy.model_management.get_torch_device()
    model = network(**config, dtype=torch.float32, device=device, operations=comfy.ops.disable_weight_init)
    fill_random(model, seed)
    control = comfy.controlnet.ControlNet(
        model.requires_grad_(False).eval(),
        compression_ratio=1,
        latent_format=latent_format(),
        load_device=device,
        extra_conds=extra_conds,
    )
    if name == "FLUX.1 dev":  # as Set Union ControlNet Type does
        control.set_extra_arg("control_type", [1])
    return control
