"""A UNet as ONNX against the host's: every input varied, and casts of any size."""

import onnxruntime
import pytest
import torch
from eq1_reference import relative_error
from fpga.fpga_core.patching.acceleration.engine_net import EngineNet, export_unet
from random_adapters import faceid, read_adapter
from tiny_models import tiny_model

CHANNELS, WIDTH = 32, 64


@pytest.fixture(scope="module", params=["own projections", "the layers' projections"])
def exported(request, tmp_path_factory):
    adapter = read_adapter(faceid("tiny", lora_rank=0)) if request.param == "own projections" else None
    net = EngineNet(tiny_model().model.diffusion_model, adapter).eval()
    file = tmp_path_factory.mktemp("engine") / "unet.onnx"
    export_unet(net, file)
    return net, onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def inputs(net, batch=2, height=16, width=16, text=77, people=2, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, 4, height, width), None, (batch, text, WIDTH), (batch, CHANNELS, height, width)]
    shapes += [(batch, people, 4, WIDTH)]
    shapes += [(batch, people, (height >> level) * (width >> level)) for level in range(net.num_levels)]
    drawn = [torch.zeros(0) if shape is None else torch.randn(shape, generator=generator) for shape in shapes]
    drawn[1] = torch.randint(0, 1000, (batch,), generator=generator).float()
    return drawn


def both(exported, given: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    net, session = exported
    with torch.inference_mode():
        expected = net(*given)
    named = {name: tensor.numpy() for name, tensor in zip(net.input_names, given, strict=True)}
    return torch.from_numpy(session.run(None, named)[0]), expected


@pytest.mark.parametrize(
    "other",
    [{}, {"batch": 1}, {"batch": 4}, {"height": 8, "width": 24}, {"text": 154}, *({"people": n} for n in range(1, 9))],
    ids=str,
)
def test_one_engine_takes_every_shape(exported, other):
    found, expected = both(exported, inputs(exported[0], **other))
    assert relative_error(found, expected) < 1e-5


def test_every_input_matters_as_it_does_in_the_graph(exported):
    net, _ = exported
    given, other = inputs(net), inputs(net, seed=1)
    before, _ = both(exported, given)
    for number, name in enumerate(net.input_names):
        changed = [*given[:number], other[number], *given[number + 1 :]]
        found, expected = both(exported, changed)
        assert relative_error(found, expected) < 1e-5, name
        assert relative_error(found, before) > 1e-4, name


def test_regions_of_zero_leave_the_picture_as_it_is(exported):
    """That is how nobody is said, because engines do not take empty inputs."""
    net, _ = exported
    nobody = inputs(net, people=1)
    nobody = [*nobody[:5], *(torch.zeros_like(region) for region in nobody[5:])]
    other = [*nobody[:4], torch.randn(nobody[4].shape), *nobody[5:]]
    assert torch.equal(both(exported, nobody)[0], both(exported, other)[0])
