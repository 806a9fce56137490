"""Folding: one layer with `alpha W + beta W_m` is the two layers, weighed and summed."""

import pytest
import torch
from fpga.fpga_core.errors import ShapeMismatchError
from fpga.fpga_core.repcontrolnet.folding import fold_weight, foldable_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 9, 7)),
    "strided_conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 7)),
    "pointwise_conv": (lambda: nn.Conv2d(4, 6, 1, bias=False), (2, 4, 9, 7)),
    "linear": (lambda: nn.Linear(4, 6), (2, 5, 4)),
    "linear_without_bias": (lambda: nn.Linear(4, 6, bias=False), (2, 5, 4)),
}
factors = st.floats(-2, 2, allow_subnormal=False)


@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("kind", LAYERS)
@given(alpha=factors, beta=factors, seed=st.integers(0, 1000))
def test_the_folded_layer_is_the_sum_of_both(kind, alpha, beta, seed):
    make, shape = LAYERS[kind]
    torch.manual_seed(seed)
    base, branch, folded, x = make().double(), make().double(), make().double(), torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in folded.named_parameters():
            parameter.copy_(fold_weight(base.get_parameter(name), branch.get_parameter(name), alpha=alpha, beta=beta))
        expected = alpha * base(x) + beta * branch(x)
        torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_weights_are_rounded_once(dtype):
    torch.manual_seed(0)
    base, branch = torch.randn(50, 40).to(dtype), torch.randn(50, 40).to(dtype)
    exact = 0.7 * base.double() + 1.3 * branch.double()
    folded = fold_weight(base, branch, alpha=0.7, beta=1.3)
    assert folded.dtype == dtype
    limits = torch.finfo(dtype)
    half_a_step = limits.eps / 2 * torch.maximum(exact.abs(), torch.tensor(limits.smallest_normal))
    assert ((folded.double() - exact).abs() <= half_a_step * 1.001).all()


def test_alpha_one_and_beta_zero_give_the_base_bit_for_bit():
    base = torch.randn(30, 30).half()
    assert torch.equal(fold_weight(base, torch.randn(30, 30), alpha=1.0, beta=0.0), base)


def test_parameters_of_different_layers_do_not_fold():
    with pytest.raises(ShapeMismatchError, match=r"\(2, 3\).*\(3, 2\)"):
        fold_weight(torch.zeros(2, 3), torch.zeros(3, 2))


class QuantizedLinear(nn.Module):
    """Like ComfyUI's layers for mixed precision: not a subclass of `nn.Linear`, and with its own parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 4, dtype=torch.int8), requires_grad=False)
        self.weight_scale = nn.Parameter(torch.ones(6, 1))
        self.register_parameter("bias", None)


def test_convolutions_and_linear_layers_are_copied_and_nothing_else():
    unet = nn.ModuleDict(
        {
            "blocks": nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Linear(8, 2, bias=False)),
            "norm": nn.LayerNorm(8),
            "table": nn.Embedding(10, 8),
            "quantized": QuantizedLinear(),
            "upsampler": nn.ConvTranspose2d(8, 4, 2),
        }
    )
    assert foldable_parameters(unet) == {
        "blocks.0.weight": (8, 4, 3, 3),
        "blocks.0.bias": (8,),
        "blocks.3.weight": (2, 8),
        "quantized.weight": (6, 4),
        "upsampler.weight": (8, 4, 2, 2),
        "upsampler.bias": (4,),
    }


def test_the_list_names_parameters_of_the_state_dict():
    unet = nn.Sequential(nn.Conv1d(3, 5, 1), nn.Sequential(nn.Linear(5, 2)))
    assert foldable_parameters(unet) == {name: value.shape for name, value in unet.state_dict().items()}
