"""A ComfyUI custom node for tests and the demo: teaches ComfyUI a small SD1.5, so that stock loaders take its
checkpoints.

ComfyUI tells SD1.5 by its 320 channels. The small one has the same blocks with 32 channels and one attention head, the
same context width of 768, CLIP-L's tokenizer, a text encoder of two layers, and an autoencoder in TAESD's layout.
"""

import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base

MODEL_CHANNELS = 32
TEXT_CONFIG = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 768,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
    "layer_norm_eps": 1e-5,
}


class SmallTextModel(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT_CONFIG),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class SmallClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=SmallTextModel)


class SmallSD15(comfy.supported_models.SD15):
    unet_config = {**comfy.supported_models.SD15.unet_config, "model_channels": MODEL_CHANNELS}
    unet_extra_config = {"num_heads": 1, "num_head_channels": -1}

    def clip_target(self, state_dict=None):
        return comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, SmallClipModel)


if SmallSD15.__name__ not in (model.__name__ for model in comfy.supported_models.models):
    comfy.supported_models.models.append(SmallSD15)

NODE_CLASS_MAPPINGS = {}
