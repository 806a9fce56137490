"""The hint encoder is that of ControlNet, whatever its widths."""

import pytest
import torch
from fpga.fpga_core.errors import CheckpointKeyError, CheckpointShapeError
from fpga.fpga_core.repcontrolnet.hint_encoder import SD15_WIDTHS, HintEncoder, build_hint_encoder, hint_encoder_widths
from tiny_branches import HINT_WIDTHS, tiny_branch
from torch.nn import functional


def test_sd15_has_the_parameters_that_the_paper_implies():
    """1067M (RepControlNet) - 1066M (SD1.5) of Table 5: weights and biases of eight 3x3 convolutions."""
    by_formula = sum(
        9 * num_in * num_out + num_out for num_in, num_out in zip(SD15_WIDTHS, SD15_WIDTHS[1:], strict=False)
    )
    encoder = HintEncoder(device="meta")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == by_formula == 1_086_480


def test_it_is_controlnets_hint_encoder():
    weights = {name: tensor.double() for name, tensor in tiny_branch().hint_encoder.items()}
    image = torch.rand(2, 3, 40, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = image
    for layer, stride in zip(range(0, 16, 2), (1, 1, 2, 1, 2, 1, 2, 1), strict=True):
        expected = functional.conv2d(expected, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride, padding=1)
        if layer < 14:
            expected = expected * torch.sigmoid(expected)
    encoder = build_hint_encoder(weights)
    torch.testing.assert_close(encoder(image), expected)
    assert encoder(image).shape == (2, HINT_WIDTHS[-1], 5, 3)


def test_building_keeps_the_weights_and_their_dtype_and_trains_nothing():
    weights = {name: tensor.half() for name, tensor in tiny_branch().hint_encoder.items()}
    encoder = build_hint_encoder(weights)
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in weights.items())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float16}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert build_hint_encoder(weights, dtype=torch.float32)[0].weight.dtype == torch.float32


class TracedOperations:
    """Stands in for ComfyUI's classes of operations."""

    class Conv2d(torch.nn.Conv2d):
        pass


def test_layers_are_made_by_the_operations_given():
    encoder = build_hint_encoder(tiny_branch().hint_encoder, operations=TracedOperations)
    assert all(isinstance(layer, TracedOperations.Conv2d) for layer in list(encoder)[::2])


def test_widths_are_read_off_the_weights():
    assert hint_encoder_widths(tiny_branch().hint_encoder) == HINT_WIDTHS
    assert hint_encoder_widths(HintEncoder(device="meta").state_dict()) == SD15_WIDTHS


@pytest.mark.parametrize("layer", range(0, 16, 2))
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_a_missing_layer_is_named(layer, kind):
    weights = dict(tiny_branch().hint_encoder)
    del weights[f"{layer}.{kind}"]
    with pytest.raises(CheckpointKeyError, match=rf"'pose'.*1 missing \(adapter.{layer}.{kind}\)"):
        hint_encoder_widths(weights, "pose")


def test_an_extra_layer_is_named():
    with pytest.raises(CheckpointKeyError, match=r"1 that do not belong \(adapter.16.weight\)"):
        hint_encoder_widths({**tiny_branch().hint_encoder, "16.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("0.weight", (2, 4, 3, 3)),  # an image of four channels
        ("2.weight", (2, 2, 5, 5)),
        ("4.weight", (3, 2, 3)),
        ("6.weight", ()),
        ("8.bias", (5,)),
        ("10.weight", (4, 5, 3, 3)),  # does not take what layer 8 gives
        ("14.weight", (0, 5, 3, 3)),
    ],
)
def test_a_layer_that_does_not_fit_is_named_with_its_shape(name, shape):
    weights = {**tiny_branch().hint_encoder, name: torch.zeros(shape)}
    layer = name.split(".")[0]
    with pytest.raises(CheckpointShapeError, match=rf"adapter.{layer} in 'pose'"):
        hint_encoder_widths(weights, "pose")
