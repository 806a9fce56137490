"""The nodes around a cast pass everything on: each widget changes the picture as the core's argument does."""

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.identity.layer_emphasis import LayerEmphasis
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.controlnet import apply_cast_controlnet
from fpga.fpga_core.patching.schedule import StepRange
from fpga.nodes.apply_cast import ApplyCast, ApplyCastControlNet
from tiny_controlnets import tiny_controlnet
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

DUO = cast(member(1, (0.0, 0.1, 0.45, 0.8)), member(2, (0.55, 0.0, 1.0, 1.0)))


def test_apply_cast():
    model, texts = tiny_model(), (conditioning(1), conditioning(2))
    adapter = tiny_adapter(model)
    for emphasis in ("uniform", "late"):
        node = ApplyCast.execute(model, *texts, adapter, DUO, 0.7, 0.0, 0.6, emphasis)
        core = apply_cast(
            model,
            *texts,
            adapter=adapter,
            cast=DUO,
            strength=0.7,
            steps=StepRange(0.0, 0.6),
            emphasis=LayerEmphasis(emphasis),
        )
        assert torch.equal(sample(*node.args), sample(*core))


def test_apply_cast_controlnet():
    model, texts, control_net = tiny_model(), (conditioning(1), conditioning(2)), tiny_controlnet()
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    node = ApplyCastControlNet.execute(*texts, control_net, tiny_adapter(), DUO, image, 0.7, 0.1, 0.8)
    core = apply_cast_controlnet(
        *texts, control_net, adapter=tiny_adapter(), cast=DUO, image=image, strength=0.7, steps=StepRange(0.1, 0.8)
    )
    assert torch.equal(sample(model, *node.args), sample(model, *core))


def test_a_range_that_ends_before_it_starts_is_refused():
    model, texts = tiny_model(), (conditioning(1), conditioning(2))
    with pytest.raises(InvalidInputError, match="start_percent is 0.8"):
        ApplyCast.execute(model, *texts, tiny_adapter(), DUO, 1.0, 0.8, 0.2)
