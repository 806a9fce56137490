"""Layer emphasis: the curves that the choices are named after."""

import pytest
from fpga.fpga_core.identity.layer_emphasis import WEAKEST, LayerEmphasis


@pytest.mark.parametrize("num_layers", [2, 5, 16, 70])
@pytest.mark.parametrize(
    "emphasis, strongest, weakest",
    [("early", 0, -1), ("late", -1, 0), ("ends", 0, None), ("ends", -1, None)],
)
def test_the_named_layer_keeps_the_full_strength(emphasis, strongest, weakest, num_layers):
    scales = [LayerEmphasis(emphasis).scale(layer, num_layers) for layer in range(num_layers)]
    assert scales[strongest] == max(scales) == pytest.approx(1)
    if weakest is not None:
        assert scales[weakest] == min(scales) == pytest.approx(WEAKEST)


def test_middle_and_ends_mirror_each_other():
    middle, ends = (
        [emphasis.scale(layer, 5) for layer in range(5)] for emphasis in (LayerEmphasis.MIDDLE, LayerEmphasis.ENDS)
    )
    assert middle == pytest.approx([0.05, 0.525, 1, 0.525, 0.05])
    assert ends == pytest.approx([1, 0.525, 0.05, 0.525, 1])


def test_uniform_changes_no_bit():
    assert {LayerEmphasis.UNIFORM.scale(layer, 16) for layer in range(16)} == {1.0}
