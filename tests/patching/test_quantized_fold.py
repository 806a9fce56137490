"""A fold that is quantized once loses what rounding loses, in files that the host's loader reads."""

import comfy.model_base
import comfy.supported_models
import pytest
import torch
from comfy.quant_ops import QuantizedTensor
from eq1_reference import relative_error
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import UnsupportedModeError
from fpga.fpga_core.patching.acceleration.quantization import WeightFormat, quantize_weights
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.repcontrolnet.saving import save_folded_model
from random_branches import random_branch
from tiny_models import tiny_model
from unet_configs import TINY_UNET

PREFIX = "model.diffusion_model."
LAYER = "input_blocks.1.1.transformer_blocks.0.attn2.to_k"
FORMATS = [WeightFormat.FP8, WeightFormat.INT8]


def loaded(tensors) -> torch.nn.Module:
    """The UNet of a file, as the host builds it for quantized layers."""
    config = comfy.supported_models.SD15(dict(TINY_UNET))
    config.unet_config["dtype"] = torch.float32
    config.quant_config, config.manual_cast_dtype = {"mixed_ops": True}, torch.float32
    unet = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu").diffusion_model
    unet.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})
    return unet


@pytest.mark.parametrize("form", FORMATS)
def test_the_fold_is_rounded_once(form, tmp_path):
    model = tiny_model()
    branch = random_branch(model.model.diffusion_model)
    plain = {PREFIX + name: value.clone() for name, value in model.model.diffusion_model.state_dict().items()}
    saved = save_folded_model(fold_branch(model, branch), branch, str(tmp_path / "m_"), form=form)
    weight = loaded(read_safetensors(saved.model_path)[0]).get_submodule(LAYER).weight
    assert isinstance(weight, QuantizedTensor)
    base = plain[f"{PREFIX}{LAYER}.weight"]
    exact = base + branch.weights[f"{LAYER}.weight"]
    rounded_base = loaded(quantize_weights(plain, form))
    alone = relative_error(rounded_base.get_submodule(LAYER).weight.dequantize(), base)
    assert 0 < relative_error(weight.dequantize(), exact) <= 1.2 * alone


def test_only_linear_layers_of_transformer_blocks_are_quantized():
    tensors = {PREFIX + name: value for name, value in tiny_model().model.diffusion_model.state_dict().items()}
    quantized = quantize_weights(tensors, WeightFormat.INT8)
    changed = {name for name, value in tensors.items() if quantized[name] is not value}
    assert f"{PREFIX}{LAYER}.weight" in changed
    assert changed == {n for n, v in tensors.items() if "transformer_blocks" in n and v.ndim == 2}


def test_what_is_quantized_is_not_quantized_again(tmp_path):
    model = tiny_model(dtype=torch.float8_e4m3fn)
    branch = random_branch(model.model.diffusion_model)
    folded = fold_branch(model, branch)
    with pytest.raises(UnsupportedModeError, match="rounded twice"):
        save_folded_model(folded, branch, str(tmp_path / "m_"), form=WeightFormat.INT8)
    assert not list(tmp_path.iterdir())
