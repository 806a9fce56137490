"""A ComfyUI custom node for tests and the demo, which teaches ComfyUI the small world's architecture.

The stock loaders, samplers and this pack's nodes then run on the small world's checkpoint unchanged. ComfyUI recognises
SD1.5 by its 320 channels, so the small model needs its own entry. It has SD1.5's blocks and its text width of 768. Its
three levels have 64, 128 and 128 channels, with attention in the upper two and in the middle. Its text encoder is
CLIP's without layers, which leaves a table of words and positions, and it has its own vocabulary.
"""

import re

import comfy.clip_model
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base

MODEL_CHANNELS = 64
UNET_CONFIG = {
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": MODEL_CHANNELS,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2],
    "transformer_depth": [1, 1, 0],
    "transformer_depth_output": [1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "num_heads": 4,
    "num_head_channels": -1,
    "context_dim": 768,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}

WORDS = (
    *["<start>", "<end>"],
    *["close-up", "half-body", "full-body", "duo", "trio", "of", "person", "in", "and", "on", "background"],
    *["smiling", "calm", "sad"],
    *["red", "blue", "green", "yellow", "purple", "orange", "white", "gray", "teal", "pink"],
    *["plain", "striped", "dotted", "hilly"],
)
MAX_TOKENS = 24
TEXT_CONFIG = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 768,
    "num_attention_heads": 12,
    "num_hidden_layers": 0,
    "max_position_embeddings": MAX_TOKENS,
    "eos_token_id": WORDS.index("<end>"),
    "layer_norm_eps": 1e-5,
}


class WordTokenizer:
    """Splits a text into the world's words, and leaves out unknown words."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        return cls()

    def __call__(self, text):
        words = re.findall(r"[a-z-]+", text.lower())
        known = [WORDS.index(word) for word in words if word in WORDS]
        return {"input_ids": [WORDS.index("<start>"), *known, WORDS.index("<end>")]}

    def get_vocab(self):
        return {word: number for number, word in enumerate(WORDS)}


class WorldTokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, **kwargs):
        super().__init__(tokenizer_class=WordTokenizer, max_length=MAX_TOKENS, **kwargs)


class SD1WorldTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, **kwargs):
        super().__init__(tokenizer=WorldTokenizer, **kwargs)


class WorldTextTransformer(comfy.clip_model.CLIPTextModel):
    """CLIP's text model with the world's vocabulary, whose size ComfyUI does not read from the configuration."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        width = config_dict["hidden_size"]
        self.set_input_embeddings(operations.Embedding(len(WORDS), width, dtype=dtype, device=device))


class WorldTextModel(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=MAX_TOKENS,
            textmodel_json_config=dict(TEXT_CONFIG),
            model_class=WorldTextTransformer,
            special_tokens={"start": 0, "end": 1, "pad": 1},
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class WorldClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=WorldTextModel)


class SmallWorld(comfy.supported_models.SD15):
    unet_config = {**comfy.supported_models.SD15.unet_config, "model_channels": MODEL_CHANNELS}
    unet_extra_config = {"num_heads": UNET_CONFIG["num_heads"], "num_head_channels": -1}

    def clip_target(self, state_dict=None):
        return comfy.supported_models_base.ClipTarget(SD1WorldTokenizer, WorldClipModel)


if SmallWorld.__name__ not in (model.__name__ for model in comfy.supported_models.models):
    comfy.supported_models.models.append(SmallWorld)

NODE_CLASS_MAPPINGS = {}
