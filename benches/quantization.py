"""The error of a RepControlNet on quantized weights: folded and then quantized once, or folded onto the quantized.

The reference is the float32 model with weights folded by hand. "rounding alone" compares the plain quantized model with
the plain float32 model, so it shows the cost of the format without a RepControlNet. The UNet has SD1.5's blocks with 64
channels. The layers are those that Save Folded Model quantizes, and the host computes with them in float32.
"""

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from _models import random_model
from _report import arguments, report
from _rounding import relative_error, sample
from fpga.fpga_core.patching.acceleration.quantization import WeightFormat, quantize_weights
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from random_branches import random_branch
from unet_configs import SD15_UNET

SMALL_UNET = {**SD15_UNET, "model_channels": 64, "num_heads": 4}
PREFIX = "diffusion_model."


def quantized(model: comfy.model_patcher.ModelPatcher, form: WeightFormat) -> comfy.model_patcher.ModelPatcher:
    """Returns a model with the quantized weights of another, as the host's loader builds it."""
    supported = comfy.supported_models.SD15(dict(SMALL_UNET))
    supported.unet_config["dtype"] = torch.float32
    supported.quant_config, supported.manual_cast_dtype = {"mixed_ops": True}, torch.float32
    made = comfy.model_base.BaseModel(supported, comfy.model_base.ModelType.EPS, device=torch.device("cpu"))
    tensors = {PREFIX + name: tensor for name, tensor in model.model.diffusion_model.state_dict().items()}
    rounded = quantize_weights(tensors, form)
    made.diffusion_model.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in rounded.items()})
    device, offload_device = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return comfy.model_patcher.CoreModelPatcher(made, device, offload_device)


def main() -> None:
    options = arguments(__doc__)
    exact, by_hand = (random_model(SMALL_UNET, torch.float32) for _ in range(2))
    branch = random_branch(exact.model.diffusion_model, scale=0.1)
    with torch.no_grad():
        for name, parameter in by_hand.model.diffusion_model.named_parameters():
            if name in branch.weights:
                parameter += branch.weights[name]
    plain, controlled = sample(exact), sample(by_hand)
    rows = []
    for form in (WeightFormat.FP8, WeightFormat.INT8):
        alone = float((sample(quantized(exact, form)) - plain).norm() / plain.norm())
        once = float((sample(quantized(by_hand, form)) - controlled).norm() / controlled.norm())
        onto = float((sample(fold_branch(quantized(exact, form), branch)) - controlled).norm() / controlled.norm())
        rows.append(
            {
                "weights stored as": form.value,
                "rounding alone": f"{alone:.1e}",
                "folded, then quantized once": f"{once:.1e}",
                "over rounding alone": f"{once / alone:.2f}",
                "folded onto the quantized": f"{onto:.1e}",
                "over rounding alone ": f"{onto / alone:.2f}",
                "what the control changes": relative_error(controlled, plain),
            }
        )
    report("Relative error of the sampled latent, 10 DDIM steps", rows, options.json)


if __name__ == "__main__":
    main()
