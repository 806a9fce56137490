"""Small but real ComfyUI models of the transformer families, with seeded random weights, and prompts that fit them."""

from dataclasses import dataclass

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from tiny_models import fill_random

TEXT_TOKENS = 7

FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 16,
    "context_in_dim": 32,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 4,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
FLUX2 = {
    **FLUX,
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "axes_dim": [4, 4, 4, 4],
    "patch_size": 1,
    "qkv_bias": False,
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "default_ref_method": "index",
}
CHROMA = {
    **{key: FLUX[key] for key in FLUX if key not in ("guidance_embed",)},
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 32,
    "n_layers": 1,
}
LUMINA2 = {
    "image_model": "lumina2",
    "in_channels": 16,
    "patch_size": 2,
    "dim": 256,
    "cap_feat_dim": 32,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "n_heads": 4,
    "n_kv_heads": 4,
    "axes_dims": [16, 24, 24],
    "axes_lens": [64, 64, 64],
    "qk_norm": True,
}
Z_IMAGE = {**LUMINA2, "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32}
QWEN_IMAGE = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 32,
    "axes_dims_rope": [4, 6, 6],
}
MAGE_FLOW = {**QWEN_IMAGE, "image_model": "mage_flow", "in_channels": 128, "out_channels": 128}
LENS = {
    "image_model": "lens",
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "enc_hidden_dim": 32,
    "axes_dims_rope": [4, 6, 6],
    "multi_layer_encoder_feature": False,
}
KREA2 = {
    "image_model": "krea2",
    "features": 64,
    "tdim": 32,
    "txtdim": 16,
    "heads": 4,
    "kvheads": 2,
    "multiplier": 2,
    "layers": 3,
    "txtlayers": 2,
    "txtheads": 4,
    "txtkvheads": 4,
}
SD3 = {
    "in_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "pos_embed_max_size": 64,
    "pos_embed_scaling_factor": None,
    "adm_in_channels": 16,
    "qk_norm": "rms",
    "x_block_self_attn_layers": [0],
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}},
}


@dataclass(frozen=True)
class TinyFamily:
    """One family: how its tiny model is made, and what its prompts and latents look like."""

    config: dict
    supported: type
    text_dim: int = 32
    latent: tuple[int, ...] = (16,)
    patch: int = 2
    num_layers: int = 3

    def model(self, seed: int = 0, **overrides) -> comfy.model_patcher.ModelPatcher:
        config = self.supported({**self.config, **overrides})
        config.unet_config["dtype"] = torch.float32
        config.manual_cast_dtype = None
        device = comfy.model_management.get_torch_device()
        model = config.get_model({}, device=device)
        fill_random(model.diffusion_model, seed)
        offload = comfy.model_management.unet_offload_device()
        return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)

    def prompt(self, seed: int = 1, **options) -> list:
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, TEXT_TOKENS, self.text_dim, generator=generator)
        return [[text, {"pooled_output": torch.randn(1, 16, generator=generator), **options}]]

    def latents(self, batch: int = 2, height: int = 12, width: int = 8, seed: int = 3) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *self.latent, height, width, generator=generator)


supported = comfy.supported_models
TINY: dict[str, TinyFamily] = {
    "SD3.5": TinyFamily(SD3, supported.SD3, num_layers=3),
    "FLUX.1 dev": TinyFamily(FLUX, supported.Flux, num_layers=4),
    "FLUX.1 schnell": TinyFamily({**FLUX, "guidance_embed": False}, supported.FluxSchnell, num_layers=4),
    "FLUX.2": TinyFamily(FLUX2, supported.Flux2, latent=(128,), patch=1, num_layers=4),
    "Chroma": TinyFamily(CHROMA, supported.Chroma, num_layers=4),
    "Qwen-Image": TinyFamily(QWEN_IMAGE, supported.QwenImage, latent=(16, 1)),
    "Mage-Flow": TinyFamily(MAGE_FLOW, supported.MageFlow, latent=(128,), patch=1),
    "Lens": TinyFamily(LENS, supported.Lens, latent=(128,), patch=1),
    "Z-Image": TinyFamily(Z_IMAGE, supported.ZImage),
    "Lumina 2": TinyFamily(LUMINA2, supported.Lumina2),
    "Krea 2": TinyFamily(KREA2, supported.Krea2, latent=(16, 1)),
}
