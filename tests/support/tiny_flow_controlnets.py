"""ControlNets and model patches of transformer families, with seeded random weights, built as ComfyUI's loaders do."""

import comfy.cldm.mmdit
import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.ldm.lumina.controlnet
import comfy.ldm.qwen_image.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy_extras.nodes_model_patch import QwenImageBlockWiseControlNet
from tiny_models import fill_random
from tiny_transformers import FLUX, QWEN_IMAGE, SD3, Z_IMAGE

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


def tiny_model_patch(name: str, seed: int = 30) -> comfy.model_patcher.ModelPatcher:
    """The control of Z-Image or of Qwen-Image that Load Model Patch loads, of the width of the tiny model."""
    device, operations = comfy.model_management.get_torch_device(), comfy.ops.disable_weight_init
    options = {"dtype": torch.float32, "device": device, "operations": operations}
    if name == "Z-Image":
        heads = {"n_heads": Z_IMAGE["n_heads"], "n_kv_heads": Z_IMAGE["n_kv_heads"], "ffn_dim_multiplier": 1.0}
        model = comfy.ldm.lumina.controlnet.ZImage_Control(dim=Z_IMAGE["dim"], **heads, n_control_layers=2, **options)
    else:
        width = QWEN_IMAGE["attention_head_dim"] * QWEN_IMAGE["num_attention_heads"]
        model = QwenImageBlockWiseControlNet(QWEN_IMAGE["num_layers"], dim=width, **options)
    fill_random(model, seed)
    return comfy.model_patcher.CoreModelPatcher(model.requires_grad_(False), device, torch.device("cpu"))
