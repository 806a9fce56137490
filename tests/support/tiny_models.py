"""Small but real ComfyUI models of the SD1.5 family with seeded random weights, for in-process tests."""

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from unet_configs import TINY_UNET


def tiny_model(
    seed: int = 0, dtype: torch.dtype = torch.float32, v_prediction: bool = False, **overrides
) -> comfy.model_patcher.ModelPatcher:
    """A ModelPatcher around an SD1.5-family UNet of about 3M parameters (context width 64).

    The output layers that SD initialises to zero are given random weights too, so that every layer matters to the
    output.
    """
    config = comfy.supported_models.SD15({**TINY_UNET, **overrides})
    config.unet_config["dtype"] = dtype
    config.manual_cast_dtype = None
    kind = comfy.model_base.ModelType.V_PREDICTION if v_prediction else comfy.model_base.ModelType.EPS
    device = comfy.model_management.get_torch_device()
    model = comfy.model_base.BaseModel(config, kind, device=device)
    fill_random(model.diffusion_model, seed)
    return comfy.model_patcher.CoreModelPatcher(
        model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )


def fill_random(unet: torch.nn.Module, seed: int) -> None:
    """Seeded weights of a trained network's scale in every parameter, also where SD initialises to zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 50
            value = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
            is_norm_scale = parameter.ndim == 1 and name.endswith(".weight")  # its value is uninitialised memory
            parameter.copy_(value.abs() if is_norm_scale else value)


TINY_SDXL_UNET = {
    **TINY_UNET,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "transformer_depth_middle": 2,
    "num_heads": -1,
    "num_head_channels": 16,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 6 * 256 + 16,
}


def tiny_sdxl(seed: int = 0) -> comfy.model_patcher.ModelPatcher:
    """A ModelPatcher around a small UNet of SDXL's layout (context width 64, pooled width 16)."""
    config = comfy.supported_models.SDXL(dict(TINY_SDXL_UNET))
    config.unet_config["dtype"] = torch.float32
    device = comfy.model_management.get_torch_device()
    model = comfy.model_base.SDXL(config, comfy.model_base.ModelType.EPS, device=device)
    fill_random(model.diffusion_model, seed)
    return comfy.model_patcher.CoreModelPatcher(model, device, comfy.model_management.unet_offload_device())


def conditioning(seed: int = 1, tokens: int = 7, width: int = 64) -> list:
    """A conditioning of random text tokens, with the pooled output that SDXL wants."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, width, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, 16, generator=generator)}]]


def sample(
    model,
    positive,
    negative,
    steps: int = 3,
    cfg: float = 3.0,
    seed: int = 5,
    size=(16, 16),
    batch: int = 1,
    sampler: str = "euler",
    scheduler: str = "normal",
    latent: torch.Tensor | None = None,
    denoise: float = 1.0,
) -> torch.Tensor:
    """A whole sampling run through `comfy.sample.sample`; returns the latent, (batch, 4, height, width)."""
    import comfy.sample

    latent = torch.zeros(batch, 4, size[1], size[0]) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, denoise=denoise, seed=seed
    )
