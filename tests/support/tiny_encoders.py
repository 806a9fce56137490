"""Small image encoders of ComfyUI's classes, with seeded random weights."""

import comfy.clip_vision
import torch

SIDE = 56


def tiny_vision(kind: str, seed: int = 0) -> comfy.clip_vision.ClipVisionModel:
    """Returns a CLIP-Vision (`clip_vision_model`) or a DINO (`dinov2`)."""
    sizes = {
        "hidden_size": 32,
        "image_size": SIDE,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "projection_dim": 16,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "use_swiglu_ffn": False,
        "num_channels": 3,
    }
    model = comfy.clip_vision.ClipVisionModel({"model_type": kind, **sizes})
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(weight.shape, generator=generator) / max(weight.shape[-1] if weight.ndim else 1, 1) ** 0.5
        for name, weight in model.get_sd().items()
        if weight.is_floating_point()
    }
    model.load_sd({**model.get_sd(), **weights})
    return model
