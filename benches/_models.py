"""Full-size models with the shapes of SD1.5 and random weights, on the meta device or in memory, without a download."""

import comfy.cldm.cldm
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from unet_configs import SD15_UNET

SMALL_UNET = {**SD15_UNET, "model_channels": 32, "num_heads": 4}


def meta_unet() -> torch.nn.Module:
    return openaimodel.UNetModel(**SD15_UNET, device="meta", operations=comfy.ops.disable_weight_init)


def controlnet(config: dict, device: str, dtype: torch.dtype | None = None) -> torch.nn.Module:
    config = {key: value for key, value in config.items() if key not in ("out_channels", "transformer_depth_output")}
    operations = comfy.ops.disable_weight_init
    return comfy.cldm.cldm.ControlNet(**config, hint_channels=3, dtype=dtype, device=device, operations=operations)


def meta_controlnet() -> torch.nn.Module:
    return controlnet(SD15_UNET, "meta")


def random_controlnet(config: dict = SD15_UNET, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
    return random_(controlnet(config, "cpu", dtype)).eval()


def random_(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fills a module's parameters in place with seeded values on the scale of a trained network."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                bound = (3 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
            else:
                parameter.fill_(1.0 if parameter.float().mean() == 1 else 0.01)
    return module


def random_model(
    config: dict = SD15_UNET, dtype: torch.dtype = torch.bfloat16, computed: torch.dtype | None = None
) -> comfy.model_patcher.ModelPatcher:
    """Returns a ModelPatcher of an SD1.5 UNet with random weights in `dtype`, computed in `computed` if given."""
    supported = comfy.supported_models.SD15(dict(config))
    supported.unet_config["dtype"] = dtype
    supported.manual_cast_dtype = computed
    device = comfy.model_management.get_torch_device()
    model = comfy.model_base.BaseModel(supported, comfy.model_base.ModelType.EPS, device=torch.device("cpu"))
    random_(model.diffusion_model)
    return comfy.model_patcher.CoreModelPatcher(model, device, comfy.model_management.unet_offload_device())
