"""What a cast's people are known by is chosen by what the model understands, and said."""

import pytest
import torch
from fpga.fpga_core.errors import UnsupportedModeError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.nodes.apply_cast import ApplyCast
from tiny_identities import CANVAS, cast, member, tiny_adapter
from tiny_models import conditioning, sample, tiny_model
from tiny_transformers import TINY

LEFT = Region.from_box(Box(0, 0, 0.5, 1))


class Words:
    """A text encoder whose text is seeded by its words."""

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        return [[conditioning(len(text))[0][0], {"pooled_output": torch.zeros(1, 16)}]]


def described(name="Ann", **known):
    return CastMember(Identity(name, **known), LEFT)


def test_a_described_person_among_encoded_ones_is_known_by_words():
    model, texts = tiny_model(), (conditioning(1), conditioning(2))
    adapter, encoded = tiny_adapter(model), member(1, (0.5, 0, 1, 1))
    node = ApplyCast.execute(model, *texts, adapter, cast(encoded, described(words="red hair")), clip=Words())
    assert node.ui["text"] == ("#1 person 1: adapter tiny\n#2 Ann: words",)
    alone = apply_cast(model, *texts, adapter=adapter, cast=cast(encoded))
    before, after = sample(*alone), sample(*node.args)
    assert float((after - before).abs().max()) > 1e-3
    place = node.args[1][1][1]
    assert torch.equal(place["mask"][0], LEFT.rasterise(CANVAS)) and place["mask_strength"] == 1
    assert torch.equal(node.args[1][1][0], Words().encode_from_tokens_scheduled("red hair")[0][0])


def test_one_person_in_words_everywhere_is_the_host_s_combined_prompt():
    model, texts = tiny_model(), (conditioning(1), conditioning(2))
    ann = Cast((CastMember(Identity("Ann", words="red hair")),), CANVAS)
    node = ApplyCast.execute(model, *texts, cast=ann, clip=Words())
    combined = [*texts[0], *Words().encode_from_tokens_scheduled("red hair")]
    torch.testing.assert_close(sample(*node.args), sample(model, combined, texts[1]), atol=1e-5, rtol=1e-5)


def test_absent_people_say_nothing():
    model, texts = tiny_model(), (conditioning(1), conditioning(2))
    node = ApplyCast.execute(model, *texts, cast=cast(described(words="red hair")), strength=0.0, clip=Words())
    assert torch.equal(sample(*node.args), sample(model, *texts))


@pytest.mark.parametrize(
    ("known", "remedy"),
    [
        ({"words": "red hair"}, "connect clip"),
        ({"pictures": (torch.rand(8, 8, 3),)}, "connect vae, and use a model that reads reference pictures"),
    ],
)
def test_a_person_whom_the_model_cannot_know_is_refused(known, remedy):
    model = TINY["SD3.5"].model()
    prompts = TINY["SD3.5"].prompt(1), TINY["SD3.5"].prompt(2)
    with pytest.raises(UnsupportedModeError, match=rf"^{remedy}.*\(SD3\) cannot be told otherwise who 'Ann' is"):
        ApplyCast.execute(model, *prompts, cast=cast(described(**known)))


def test_an_encoded_person_without_an_adapter_is_refused():
    model, texts = tiny_model(), (conditioning(1), conditioning(2))
    with pytest.raises(UnsupportedModeError, match="^connect an identity adapter"):
        ApplyCast.execute(model, *texts, cast=cast(member(1)))
