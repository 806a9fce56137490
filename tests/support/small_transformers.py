"""Transformers, text encoder and autoencoder of the host's classes, small enough for a test, in published layouts."""

import importlib.util
from pathlib import Path

import comfy.ldm.models.autoencoder
import comfy.ops
import comfy.text_encoders.llama
import torch
from tiny_models import fill_random
from tiny_transformers import FLUX2, TINY, Z_IMAGE, TinyFamily

STAND_IN = Path(__file__).parent / "stand_ins" / "small_transformers" / "__init__.py"


def stand_in_node():
    """The custom node that lets a server load them, imported as ComfyUI does."""
    spec = importlib.util.spec_from_file_location("small_transformers_node", STAND_IN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_transformer(name: str, seed: int = 0) -> torch.nn.Module:
    """The network of "FLUX.2" or "Z-Image", as the detection of the host reads it from its file."""
    node = stand_in_node()
    configs = {
        "FLUX.2": {
            **FLUX2,
            "hidden_size": 128,
            "num_heads": 1,
            "axes_dim": [32, 32, 32, 32],
            "mlp_ratio": 3.0,
            "theta": 2000,
            "context_in_dim": 3 * node.ENCODER_WIDTH,
            "depth": 1,
            "depth_single_blocks": 2,
            "guidance_embed": False,
        },
        "Z-Image": {**Z_IMAGE, **node.Z_IMAGE, "cap_feat_dim": node.ENCODER_WIDTH, "n_refiner_layers": 2},
    }
    return TinyFamily(configs[name], TINY[name].supported).model(seed).model.diffusion_model


def small_qwen3(seed: int = 0) -> torch.nn.Module:
    stand_in_node()
    with torch.device("cpu"):
        encoder = comfy.text_encoders.llama.Qwen3_4B({}, torch.float32, "cpu", comfy.ops.disable_weight_init)
    fill_random(encoder, seed)
    return encoder


def flux2_autoencoder(seed: int = 0) -> torch.nn.Module:
    config = {
        "double_z": True,
        "z_channels": 32,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": stand_in_node().AUTOENCODER_WIDTH,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
        "batch_norm_latent": True,
    }
    autoencoder = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=config, embed_dim=32)
    torch.manual_seed(seed)
    for layer in autoencoder.modules():
        for kind in (torch.nn.Conv2d, torch.nn.GroupNorm):
            if isinstance(layer, kind):
                kind.reset_parameters(layer)  # ComfyUI's layers leave it out
    return autoencoder
