"""ControlNets of the tiny models' families, with seeded random weights, as ComfyUI loads them."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import torch
from tiny_models import fill_random
from unet_configs import TINY_UNET


def tiny_controlnet(seed: int = 20, config: dict = TINY_UNET, **overrides) -> comfy.controlnet.ControlNet:
    config = {**config, "num_heads": 8} | overrides
    config = {key: value for key, value in config.items() if key not in ("out_channels", "transformer_depth_output")}
    device = comfy.model_management.get_torch_device()
    model = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, dtype=torch.float32, device=device, operations=comfy.ops.disable_weight_init
    )
    fill_random(model, seed)
    return comfy.controlnet.ControlNet(model.requires_grad_(False).eval(), load_device=device)
