"""An adapter's tokens, compared with the published formulas in support/published_resamplers.py."""

import logging

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.identity.adapter_layouts import Variant
from fpga.fpga_core.identity.people import stack_tokens
from published_resamplers import face_plus, face_projection, feature_resampler, relative_error
from random_adapters import (
    ANTELOPEV2,
    ARCHITECTURES,
    BUFFALO_L,
    faceid,
    faceid_plus,
    faceid_portrait,
    fpga_adapter,
    instantid,
    plus_face,
    random_identity,
    read_adapter,
)
from torch.nn.functional import normalize

TOLERANCE = 1e-5
TINY_CLIP = {"vision": 48}
UNKNOWN = "f" * 64
AURAFACE = "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60"


def seen_by_clip(architecture, **options):
    """As many features as ViT-H has for the real architecture."""
    num_features = 257 if architecture == "sd15" else 5
    clip = {"vision": ARCHITECTURES[architecture].clip_dim}
    return random_identity(clip=clip, clip_tokens=num_features, **options)


def normalised(identity, recogniser=BUFFALO_L):
    return normalize(identity.embeddings[recogniser].double(), dim=-1)


@pytest.mark.parametrize("architecture", ["tiny", "sd15"])
def test_faceid_projects_the_normalised_embedding(architecture):
    file, identity = faceid(architecture), random_identity()
    expected = face_projection(file["image_proj"], normalised(identity))
    tokens = read_adapter(file).tokens(identity)
    assert tokens.shape == (1, 4, file["image_proj"]["norm.weight"].shape[0])
    assert relative_error(tokens, expected) < TOLERANCE


@pytest.mark.parametrize(
    ("architecture", "variant", "shortcut", "strength"),
    [
        ("tiny", Variant.PLUS_V1, False, 1.0),
        ("tiny", Variant.AUTO, True, 1.0),
        ("tiny", Variant.PLUS_V2, True, 0.6),
        ("sd15", Variant.PLUS_V2, True, 1.0),
    ],
)
def test_faceid_plus_follows_its_version(architecture, variant, shortcut, strength):
    file, identity = faceid_plus(architecture, lora_rank=0), seen_by_clip(architecture)
    adapter = read_adapter(file, variant=variant, structure_strength=strength)
    embedding = normalised(identity)
    expected = face_plus(file["image_proj"], embedding, identity.clip_hidden["vision"], shortcut, strength)
    unconditional = face_plus(
        file["image_proj"], torch.zeros_like(embedding), identity.clip_null["vision"], shortcut, strength
    )
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE
    assert relative_error(adapter.null_tokens(identity), unconditional) < TOLERANCE


@pytest.mark.parametrize("architecture", ["tiny", "sd15"])
def test_plus_face_resamples_clip_features_alone(architecture):
    file, identity = plus_face(architecture), seen_by_clip(architecture, recognisers=())
    adapter = read_adapter(file)
    assert adapter.tokens(identity).shape[:2] == (1, 16)
    expected = feature_resampler(file["image_proj"], identity.clip_hidden["vision"])
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE
    unconditional = feature_resampler(file["image_proj"], identity.clip_null["vision"])
    assert relative_error(adapter.null_tokens(identity), unconditional) < TOLERANCE


def test_instantid_resamples_the_embedding_as_the_recogniser_gave_it():
    file, identity = instantid("tiny"), random_identity(recognisers=(ANTELOPEV2,))
    adapter = read_adapter(file)
    expected = feature_resampler(file["image_proj"], identity.embeddings[ANTELOPEV2][:, None])
    assert adapter.tokens(identity).shape == (1, 16, 64)
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE
    unconditional = feature_resampler(file["image_proj"], torch.zeros(1, 1, 512))
    assert relative_error(adapter.null_tokens(identity), unconditional) < TOLERANCE


def test_only_adapters_of_normalised_embeddings_ignore_the_length():
    short = random_identity(recognisers=(ANTELOPEV2, BUFFALO_L))
    long = type(short)("long", {key: 3 * embedding for key, embedding in short.embeddings.items()})
    unmoved, moved = (
        relative_error(adapter.tokens(long), adapter.tokens(short))
        for adapter in (read_adapter(faceid("tiny")), read_adapter(instantid("tiny")))
    )
    assert unmoved < TOLERANCE
    assert moved > 1000 * TOLERANCE


def test_portrait_puts_the_tokens_of_its_photos_side_by_side():
    file, identity = faceid_portrait("tiny"), random_identity(num_photos=3)
    adapter = read_adapter(file)
    expected = face_projection(file["image_proj"], normalised(identity)).reshape(1, 48, 64)
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE
    zeros = face_projection(file["image_proj"], torch.zeros(3, 512)).reshape(1, 48, 64)
    assert relative_error(adapter.null_tokens(identity), zeros) < TOLERANCE


def test_unnormalised_portrait_resamples_each_photo():
    file, identity = instantid("tiny"), random_identity(num_photos=2)
    adapter = read_adapter(file, variant=Variant.PORTRAIT_UNNORM)
    expected = feature_resampler(file["image_proj"], identity.embeddings[BUFFALO_L][:, None]).reshape(1, 32, 64)
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE


def test_portrait_uses_five_photos_and_says_so(caplog):
    file, identity = faceid_portrait("tiny"), random_identity(num_photos=7)
    with caplog.at_level(logging.WARNING):
        tokens = read_adapter(file).tokens(identity)
    expected = face_projection(file["image_proj"], normalised(identity)[:5]).reshape(1, 80, 64)
    assert relative_error(tokens, expected) < TOLERANCE
    assert "reads 5 photos" in caplog.text
    assert "has 7" in caplog.text


def test_several_photos_become_one_embedding():
    file, identity = faceid("tiny"), random_identity(num_photos=4)
    mean = normalize(normalised(identity).mean(0, keepdim=True), dim=-1)
    assert relative_error(read_adapter(file).tokens(identity), face_projection(file["image_proj"], mean)) < TOLERANCE


def test_several_photos_become_one_set_of_clip_features():
    file, identity = plus_face("tiny"), random_identity(num_photos=4, clip=TINY_CLIP)
    mean = identity.clip_hidden["vision"].double().mean(0, keepdim=True)
    assert relative_error(read_adapter(file).tokens(identity), feature_resampler(file["image_proj"], mean)) < TOLERANCE


def test_the_order_of_the_photos_is_immaterial():
    identity = random_identity(num_photos=4, clip=TINY_CLIP)
    shuffled = type(identity)(
        "shuffled",
        {key: photos[[2, 0, 3, 1]] for key, photos in identity.embeddings.items()},
        {key: photos[[2, 0, 3, 1]] for key, photos in identity.clip_hidden.items()},
        identity.clip_null,
    )
    adapter = read_adapter(faceid_plus("tiny", lora_rank=0))
    assert relative_error(adapter.tokens(shuffled), adapter.tokens(identity)) < TOLERANCE


def test_half_precision_files_are_computed_in_single_precision():
    file, identity = faceid_plus("tiny", dtype=torch.float16), random_identity(clip=TINY_CLIP)
    adapter = read_adapter(file)
    expected = face_plus(file["image_proj"], normalised(identity), identity.clip_hidden["vision"], shortcut=True)
    assert adapter.tokens(identity).dtype == torch.float32
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE
    assert adapter.resampler.proj[0].weight.dtype == torch.float16  # the file's tensors are kept as they are


def test_fpga_tokens_with_and_without_clip():
    identity = random_identity(clip=TINY_CLIP)
    plain, with_clip = fpga_adapter("tiny"), fpga_adapter("tiny", clip_model="vision")
    expected = face_projection(plain.resampler.state_dict(), normalised(identity))
    assert plain.tokens(identity).shape == (1, 4, 64)
    assert relative_error(plain.tokens(identity), expected) < TOLERANCE
    expected = face_plus(
        with_clip.resampler.state_dict(), normalised(identity), identity.clip_hidden["vision"], shortcut=True
    )
    assert relative_error(with_clip.tokens(identity), expected) < TOLERANCE


def test_the_fpga_negative_carries_what_its_header_says():
    identity = random_identity()
    trained, same = fpga_adapter("tiny"), fpga_adapter("tiny", trained_null=False)
    assert torch.equal(trained.null_tokens(identity), trained.null)
    assert torch.equal(same.null_tokens(identity), same.tokens(identity))


def test_a_known_other_recogniser_is_refused():
    with pytest.raises(InvalidInputError, match=r"needs face embeddings of buffalo_l .* has those of antelopev2"):
        read_adapter(faceid("tiny")).tokens(random_identity(recognisers=(ANTELOPEV2,)))
    with pytest.raises(InvalidInputError, match=r"needs face embeddings of antelopev2 .* has those of buffalo_l"):
        read_adapter(instantid("tiny")).tokens(random_identity(recognisers=(BUFFALO_L,)))
    with pytest.raises(InvalidInputError, match="AuraFace"):
        read_adapter(faceid_portrait("tiny")).null_tokens(random_identity(recognisers=(AURAFACE,)))


def test_an_unknown_recogniser_is_used_with_a_warning(caplog):
    file, identity = faceid("tiny"), random_identity(recognisers=(AURAFACE, UNKNOWN))
    with caplog.at_level(logging.WARNING):
        tokens = read_adapter(file).tokens(identity)
    expected = face_projection(file["image_proj"], normalised(identity, UNKNOWN))
    assert relative_error(tokens, expected) < TOLERANCE
    assert "unknown recogniser (ffffffffffff)" in caplog.text


def test_the_right_recogniser_is_preferred_and_silent(caplog):
    file, identity = faceid("tiny"), random_identity(recognisers=(UNKNOWN, ANTELOPEV2, BUFFALO_L))
    with caplog.at_level(logging.WARNING):
        tokens = read_adapter(file).tokens(identity)
    assert relative_error(tokens, face_projection(file["image_proj"], normalised(identity))) < TOLERANCE
    assert not caplog.text


def test_an_fpga_adapter_takes_its_own_recogniser_only():
    adapter = fpga_adapter("tiny", recogniser=UNKNOWN)
    assert adapter.tokens(random_identity(recognisers=(UNKNOWN,))).shape == (1, 4, 64)
    with pytest.raises(InvalidInputError, match="are not interchangeable"):
        adapter.tokens(random_identity(recognisers=("e" * 64,)))


def test_missing_clip_features_are_named():
    with pytest.raises(InvalidInputError, match=r"exactly one CLIP-Vision model that is 48 wide .* holds 0"):
        read_adapter(plus_face("tiny")).tokens(random_identity())
    with pytest.raises(InvalidInputError, match="trained with the CLIP-Vision model vision"):
        fpga_adapter("tiny", clip_model="vision").tokens(random_identity(clip={"other": 48}))


def test_stacked_tokens_attend_as_each_alone():
    """Softmax attention over a repeated set equals that over the set, up to rounding."""
    generator = torch.Generator().manual_seed(3)
    alone = [torch.randn(1, count, 8, generator=generator) for count in (16, 32, 48)]
    queries = torch.randn(1, 10, 8, generator=generator)
    stacked = stack_tokens(alone)
    assert stacked.shape == (3, 96, 8)
    for row, tokens in zip(stacked, alone, strict=True):
        expected = torch.softmax(queries @ tokens.transpose(1, 2), -1) @ tokens
        found = torch.softmax(queries @ row.T, -1) @ row
        assert relative_error(found, expected) < 1e-6


def test_tokens_of_different_adapters_do_not_stack():
    with pytest.raises(ShapeMismatchError, match="768, 2048 wide"):
        stack_tokens([torch.zeros(1, 4, 768), torch.zeros(1, 16, 2048)])
