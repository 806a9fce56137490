"""A small real text encoder, and a training set on disk, for trainings beside the tiny model."""

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch

TEXT_CONFIG = {
    "hidden_act": "quick_gelu",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
    "layer_norm_eps": 1e-5,
}


class TinyTextModel(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT_CONFIG),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class TinyClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=TinyTextModel)


def tiny_clip(seed: int = 0) -> comfy.sd.CLIP:
    """CLIP-L's tokenizer and a text encoder of two layers, 64 wide, with seeded random weights."""
    clip = comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, TinyClipModel))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in clip.cond_stage_model.named_parameters():
            value = torch.randn(parameter.shape, generator=generator) / (parameter.shape or (1,))[-1] ** 0.5
            parameter.copy_(1 + value / 10 if "norm" in name and name.endswith("weight") else value)
    return clip
