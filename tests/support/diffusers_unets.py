"""diffusers' UNets of the architectures that adapters are for, and of the tiny model."""

import torch
from diffusers import UNet2DConditionModel

DIFFUSERS_CONFIGS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8},  # the rest are diffusers' defaults
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
    },
    "tiny": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
    },
}


def diffusers_unet(architecture, device="meta"):
    with torch.device(device):
        return UNet2DConditionModel(**DIFFUSERS_CONFIGS[architecture])
