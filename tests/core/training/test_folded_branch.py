"""The branch under training, on a network of torch's own layers: live equals folded, and gradients are the same."""

import copy

import pytest
import torch
from fpga.fpga_core.repcontrolnet.folding import foldable_parameters
from fpga.fpga_core.repcontrolnet.hint_encoder import HintEncoder
from fpga.fpga_core.training.method.folded_branch import FoldedBranch, TrainedPart
from torch import nn


class Net(nn.Module):
    """A convolution with stride and groups, a norm, a linear layer without bias, and one used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.linear = nn.Linear(8, 8, bias=False)
        self.twice = nn.Linear(8, 8)

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        return self.twice(torch.sin(self.twice(self.linear(x))))


def nets():
    torch.manual_seed(0)
    net = Net().requires_grad_(False)
    weights = {name: torch.randn_like(net.get_parameter(name)) / 4 for name in foldable_parameters(net)}
    branch = FoldedBranch(weights, HintEncoder((3, 2, 2, 2, 2, 2, 2, 2, 8)))
    plain = copy.deepcopy(net)
    branch.attach(net)
    return plain, net, branch, torch.randn(2, 4, 9, 7)


def live(net, weights, x):
    """The paper's form: the outputs of both layers are added."""

    def both(layer, path, x):
        weight, bias = weights[f"{path}.weight"], weights.get(f"{path}.bias")
        if isinstance(layer, nn.Linear):
            return layer(x) + nn.functional.linear(x, weight, bias)
        return layer(x) + nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)

    x = net.norm(both(net.conv, "conv", x)).flatten(2).transpose(1, 2)
    return both(net.twice, "twice", torch.sin(both(net.twice, "twice", both(net.linear, "linear", x))))


def test_the_sum_of_weights_is_the_sum_of_outputs_and_of_their_gradients():
    plain, net, branch, x = nets()
    copies = {name: nn.Parameter(weight.clone()) for name, weight in branch.weights.items()}
    expected, actual = live(plain, copies, x), net(x)
    assert torch.allclose(actual, expected, atol=1e-5)
    expected.square().sum().backward()
    actual.square().sum().backward()
    for name, twin in copies.items():
        assert torch.allclose(branch.layers[name.replace(".", "/")].grad, twin.grad, rtol=1e-4, atol=1e-4)


def test_a_state_dict_brings_the_branch_back():
    _, net, branch, x = nets()
    expected, state = net(x), {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.zero_()
    assert not torch.allclose(net(x), expected)
    branch.load_state_dict(state)
    assert torch.equal(net(x), expected)


@pytest.mark.parametrize("part", list(TrainedPart))
def test_what_is_trained(part):
    weights = {f"block.attn2.to_{letter}.weight": torch.zeros(4, 4) for letter in "qkv"}
    branch = FoldedBranch(weights, HintEncoder((3, 2, 2, 2, 2, 2, 2, 2, 8)), part=part)
    trained = {name.rpartition("/to_")[2] for name, parameter in branch.named_parameters() if parameter.requires_grad}
    adapter = {f"adapter.{2 * layer}.{kind}" for layer in range(8) for kind in ("weight", "bias")}
    keys_values = {"k/weight", "v/weight"}
    assert (
        trained
        == {
            TrainedPart.ALL: keys_values | {"q/weight"} | adapter,
            TrainedPart.KEYS_VALUES: keys_values,
            TrainedPart.NONE: set(),
        }[part]
    )
