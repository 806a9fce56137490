"""What a cast, a RepControlNet or a ControlNet with a cast cannot do is said, with what to wire instead."""

import logging

import pytest
import torch
from fpga.fpga_core.errors import BaseModelError, InvalidInputError, ShapeMismatchError
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.cast.controlnet import apply_cast_controlnet
from fpga.fpga_core.patching.repcontrolnet.apply import apply_repcontrolnet
from fpga.fpga_core.shapes import Extent
from random_branches import random_branch
from tiny_controlnets import tiny_controlnet
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model

LEFT = (0.0, 0.1, 0.45, 0.8)
HINT = torch.rand(1, 64, 64, 3)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return conditioning(1), conditioning(2)


# A cast is made for a picture of one shape


def test_a_latent_of_another_shape_than_the_canvas_is_refused(model, texts):
    applied = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=cast(member(1, LEFT)))
    with pytest.raises(
        ShapeMismatchError, match="for a picture of 512x512, but 104x152 .* width and height to 104 and"
    ):
        sample(*applied, steps=1, size=(13, 19))


def test_a_controlnet_refuses_it_too(model, texts):
    positive, negative = apply_cast_controlnet(
        *texts, tiny_controlnet(), adapter=tiny_adapter(model), cast=cast(member(1, LEFT)), image=HINT
    )
    with pytest.raises(ShapeMismatchError, match="for a picture of 512x512, but 104x152"):
        sample(model, positive, negative, steps=1, size=(13, 19))


@pytest.mark.parametrize(
    ("canvas", "size"),
    [((512, 512), (24, 24)), ((1000, 750), (20, 15)), ((1016, 760), (16, 12)), ((500, 333), (12, 8))],
)
def test_other_sizes_of_the_same_shape_are_sampled(model, texts, canvas, size):
    """As in a second pass; sizes are rounded to whole latent pixels."""
    people = cast(member(1, LEFT), canvas=Extent(*canvas))
    applied = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=people)
    assert sample(*applied, steps=1, size=size).isfinite().all()


def test_people_in_the_whole_picture_fit_every_shape(model, texts):
    applied = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=cast(member(1)))
    assert sample(*applied, steps=1, size=(13, 19)).isfinite().all()


# All three outputs belong to the sampler


def warnings_of(run, caplog) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fpga"):
        run()
    return [record.getMessage() for record in caplog.records]


def test_a_model_whose_prompts_carry_no_cast_is_warned_of(model, texts, caplog):
    plain_positive, plain_negative = texts
    patched, positive, negative = apply_cast(model, *texts, adapter=tiny_adapter(model), cast=cast(member(1, LEFT)))

    def run(*prompts):
        return warnings_of(lambda: sample(patched, *prompts, steps=1), caplog)

    assert run(positive, negative) == []
    (warning,) = run(plain_positive, plain_negative)
    assert "no identity acts; connect Apply Cast's positive and negative outputs" in warning
    (warning,) = run(positive, plain_negative)
    assert "connect Apply Cast's negative output to the sampler too" in warning


# What was made for another model


def test_prompts_of_another_width_are_refused(model, texts):
    wide, branch = conditioning(1, width=96), random_branch(model.model.diffusion_model)
    for prompts in ((wide, texts[1]), (texts[0], wide)):
        with pytest.raises(BaseModelError, match="a prompt is 96 wide, but the model reads text that is 64 wide"):
            apply_cast(model, *prompts, adapter=tiny_adapter(model), cast=cast(member(1)))
        with pytest.raises(BaseModelError, match="a prompt is 96 wide"):
            apply_repcontrolnet(model, *prompts, branch=branch, image=HINT)
        with pytest.raises(BaseModelError, match="a prompt is 96 wide"):
            apply_cast_controlnet(
                *prompts, tiny_controlnet(), adapter=tiny_adapter(model), cast=cast(member(1)), image=HINT
            )


@pytest.fixture(scope="module")
def each_way(model, texts):
    """Every way in which the pack enters a sampling run: model, positive and negative."""
    people, adapter = cast(member(1)), tiny_adapter(model)
    with_branch = apply_repcontrolnet(model, *texts, branch=random_branch(model.model.diffusion_model), image=HINT)
    return {
        "cast": apply_cast(model, *texts, adapter=adapter, cast=people),
        "controlnet": (
            model,
            *apply_cast_controlnet(*texts, tiny_controlnet(), adapter=adapter, cast=people, image=HINT),
        ),
        "repcontrolnet": (with_branch.model, with_branch.positive, with_branch.negative),
    }


@pytest.mark.parametrize("way", ["cast", "controlnet", "repcontrolnet"])
def test_latents_of_other_channels_are_refused(each_way, way):
    with pytest.raises(InvalidInputError, match=r"16, 16, 16\), but this model samples \(pictures, 4, height"):
        sample(*each_way[way], steps=1, latent=torch.ones(1, 16, 16, 16))


@pytest.mark.parametrize("area", [(0, 8, 0, 0), (8, 0, 0, 0), ("percentage", 0.0, 1.0, 0, 0)])
def test_an_area_of_0_is_refused(model, texts, area):
    positive = [[text, {**options, "area": area}] for text, options in texts[0]]
    applied = apply_cast(model, positive, texts[1], adapter=tiny_adapter(model), cast=cast(member(1)))
    with pytest.raises(InvalidInputError, match="an area without width or height"):
        sample(*applied, steps=1)


def test_a_condition_image_of_one_line_is_refused(model, texts):
    line = torch.rand(1, 4096, 1, 3)
    with pytest.raises(InvalidInputError, match="1x4096 pixels, which is too thin"):
        apply_repcontrolnet(model, *texts, branch=random_branch(model.model.diffusion_model), image=line)
    with pytest.raises(InvalidInputError, match="1x4096 pixels, which is too thin"):
        apply_cast_controlnet(*texts, tiny_controlnet(), adapter=tiny_adapter(model), cast=cast(member(1)), image=line)
