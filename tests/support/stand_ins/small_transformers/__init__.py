"""A ComfyUI custom node for tests and the demo: lets stock loaders take small stand-ins of Z-Image, Qwen3 4B and the
autoencoder of FLUX.2.

ComfyUI knows them by their widths. The small Z-Image has the same blocks at a width of 256, and the small Qwen3 has 28
of 36 layers at a width of 32, with the tokenizer and the vocabulary of the large one. FLUX.2 itself needs nothing: its
detection reads the widths from the file.
"""

from dataclasses import dataclass

import comfy.model_detection
import comfy.sd
import comfy.text_encoders.llama

ENCODER_WIDTH = 32
AUTOENCODER_WIDTH = 32
Z_IMAGE = {
    "dim": 256,
    "n_heads": 4,
    "n_kv_heads": 4,
    "axes_dims": [16, 24, 24],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}


@dataclass
class SmallQwen3Config(comfy.text_encoders.llama.Qwen3_4BConfig):
    hidden_size: int = ENCODER_WIDTH
    intermediate_size: int = 64
    num_hidden_layers: int = 28  # FLUX.2 reads layers 9, 18 and 27
    num_attention_heads: int = 2
    num_key_value_heads: int = 1
    head_dim = 16


class SmallAutoencoder(comfy.sd.AutoencoderKL):
    """ComfyUI reads the width of the decoder from the file, and takes that of the encoder to be 128."""

    def __init__(self, *, ddconfig, decoder_ddconfig=None, **kwargs):
        is_small = decoder_ddconfig is not None and decoder_ddconfig["ch"] == AUTOENCODER_WIDTH
        super().__init__(ddconfig=decoder_ddconfig if is_small else ddconfig, **kwargs)


def recognise_encoder(recognise):
    def recognised(weights):
        norm = weights.get("model.layers.0.post_attention_layernorm.weight")
        is_small = norm is not None and norm.shape[0] == ENCODER_WIDTH
        return comfy.sd.TEModel.QWEN3_4B if is_small else recognise(weights)

    return recognised


def recognise_network(recognise):
    def recognised(*args, **kwargs):
        config = recognise(*args, **kwargs)
        is_small = config is not None and config.get("image_model") == "lumina2" and config["dim"] == Z_IMAGE["dim"]
        return {**config, **Z_IMAGE} if is_small else config

    return recognised


if not hasattr(comfy.sd.detect_te_model, "__wrapped_for_tests__"):
    comfy.text_encoders.llama.Qwen3_4BConfig = SmallQwen3Config
    comfy.sd.AutoencoderKL = SmallAutoencoder
    comfy.sd.detect_te_model = recognise_encoder(comfy.sd.detect_te_model)
    comfy.sd.detect_te_model.__wrapped_for_tests__ = True
    comfy.model_detection.detect_unet_config = recognise_network(comfy.model_detection.detect_unet_config)

NODE_CLASS_MAPPINGS = {}
