"""CLIP-Vision features against transformers' own model with the same weights."""

import comfy.clip_vision
import comfy.model_management
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.identity.encoding import encode_photos
from fpga.fpga_core.identity.identity import PHOTO_VIEW
from fpga.fpga_core.patching.clip_vision import ClipVisionEncoder, clip_vision_key
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SIZES = {
    "hidden_size": 32,
    "image_size": 56,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "patch_size": 14,
    "projection_dim": 16,
    "hidden_act": "gelu",
}
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def reference_model(seed: int = 0) -> CLIPVisionModelWithProjection:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES)).eval()
        for parameter in model.parameters():
            noisy = parameter.data + 0.1 * torch.randn_like(parameter)  # biases and norms start at 0 and 1
            parameter.data = noisy.half().float()  # the host holds float16 on a CPU
    return model


def host_model(weights: dict[str, torch.Tensor]) -> comfy.clip_vision.ClipVisionModel:
    config = {**SIZES, "num_channels": 3, "model_type": "clip_vision_model"}
    model = comfy.clip_vision.ClipVisionModel(config)
    missing, unexpected = model.load_sd({name: tensor.clone() for name, tensor in weights.items()})
    assert not missing and set(unexpected) <= {"vision_model.embeddings.position_ids"}
    return model


@pytest.fixture(scope="module")
def reference() -> CLIPVisionModelWithProjection:
    return reference_model()


@pytest.fixture
def encoder(reference) -> ClipVisionEncoder:
    return ClipVisionEncoder(host_model(reference.state_dict()))


def penultimate(reference, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return reference(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


def test_hidden_states_are_transformers_penultimate_ones(reference, encoder):
    image = (torch.rand(1, 56, 56, 3) * 255).round() / 255  # no resizing, no rounding: what is left is the model
    expected = penultimate(reference, ((image - MEAN) / STD).movedim(-1, 1))  # BHWC -> BCHW
    found = encoder.hidden_states([image])
    assert found.shape == (1, 17, 32) and found.dtype == torch.float32 and found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, penultimate(reference, torch.zeros(1, 3, 56, 56)), atol=0.1)


def test_null_is_what_zeros_after_normalisation_give(reference, encoder):
    zeros = penultimate(reference, torch.zeros(1, 3, 56, 56))
    torch.testing.assert_close(encoder.null_hidden_states(), zeros, rtol=1e-4, atol=1e-5)
    # A picture of the mean colour, which the host rounds to 8 bits, is not the same.
    mean_colour = encoder.hidden_states([MEAN.expand(1, 56, 56, 3)])
    assert (mean_colour - zeros).abs().max() > 0.01


def test_the_middle_square_is_seen(reference, encoder):
    wide = torch.zeros(1, 56, 112, 3)
    wide[:, :, 28:84] = torch.rand(1, 56, 56, 3)
    torch.testing.assert_close(encoder.hidden_states([wide]), encoder.hidden_states([wide[:, :, 28:84]]))


def test_features_need_no_gradient_and_the_model_goes_through_the_host(encoder):
    assert not encoder.hidden_states([torch.rand(1, 56, 56, 3)]).requires_grad
    assert not encoder.null_hidden_states().requires_grad
    loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
    assert encoder._clip_vision.patcher in loaded


def calls_of(encoder, run) -> list[int]:
    """Returns the number of pictures in each call of the model."""
    sizes = []
    hook = encoder._clip_vision.model.register_forward_pre_hook(
        lambda model, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    run()
    hook.remove()
    return sizes


def test_all_photos_are_seen_in_one_call_and_no_picture_once(encoder):
    photos = [torch.rand(1, 80, 60, 3), torch.rand(2, 56, 56, 3)]
    assert calls_of(encoder, lambda: encode_photos(photos, None, encoder)) == [3, 1]
    another = ClipVisionEncoder(encoder._clip_vision)  # as the next run of the node makes it
    assert calls_of(encoder, lambda: encode_photos(photos, None, another)) == [3]


def test_the_key_names_the_weights_and_not_their_storage(reference):
    weights = {name: tensor * 1.0001 for name, tensor in reference.state_dict().items()}  # no float16 numbers any more
    key = clip_vision_key(host_model(weights))
    assert key.startswith("clip-32x17-") and len(key) == len("clip-32x17-") + 16
    halved = {name: tensor.half() for name, tensor in weights.items()}  # a float16 file
    for held_in in (torch.float16, torch.float32):
        for file in (weights, halved):
            model = host_model(weights)
            model.model.to(held_in)
            model.load_sd(file)
            assert model.model.vision_model.post_layernorm.weight.dtype == held_in
            assert clip_vision_key(model) == key
    without_head = {name: t for name, t in weights.items() if name != "visual_projection.weight"}
    projected = {**without_head, "visual_projection.weight": torch.rand(16, 32)}
    assert clip_vision_key(host_model(projected)) == key


@pytest.mark.parametrize(
    "name",
    [
        "vision_model.embeddings.class_embedding",
        "vision_model.encoder.layers.0.self_attn.q_proj.bias",
        "vision_model.encoder.layers.2.mlp.fc2.bias",
        "vision_model.post_layernorm.weight",
    ],
)
def test_any_layer_that_was_trained_further_changes_the_key(reference, name):
    weights = {key: tensor.clone() for key, tensor in reference.state_dict().items()}
    before = clip_vision_key(host_model(weights))
    weights[name][3] += 0.01
    assert clip_vision_key(host_model(weights)) != before


def test_the_key_is_as_documented(reference):
    """Computed again from docs/formats.md."""
    import hashlib

    digest = hashlib.sha256()
    weights = host_model(reference.state_dict()).get_sd()
    for name in sorted(key for key in weights if key.startswith("vision_model.")):
        sizes = list(weights[name].shape)
        digest.update(
            f"{name} ({sizes[0]},)\n".encode()
            if len(sizes) == 1
            else f"{name} ({', '.join(map(str, sizes))})\n".encode()
        )
        if len(sizes) == 1:
            digest.update(weights[name].numpy().astype("<f2").tobytes())
    assert clip_vision_key(host_model(reference.state_dict())) == f"clip-32x17-{digest.hexdigest()[:16]}"


def test_a_model_without_a_class_token_is_refused():
    config = {**SIZES, "num_channels": 3, "model_type": "siglip_vision_model"}
    with pytest.raises(InvalidInputError, match="siglip_vision_model, which no identity adapter reads"):
        ClipVisionEncoder(comfy.clip_vision.ClipVisionModel(config))


def test_an_identity_holds_what_the_model_saw(encoder):
    photos = torch.rand(2, 80, 60, 3)
    identity = encode_photos([photos], None, encoder).identity
    view = encoder.key + PHOTO_VIEW  # no face analysis has aligned them
    assert list(identity.clip_hidden) == [view] == list(identity.clip_null)
    for index in range(2):
        expected = encoder.hidden_states([photos[index : index + 1]])
        torch.testing.assert_close(identity.clip_hidden[view][index : index + 1], expected)
    assert torch.equal(identity.clip_null[view], encoder.null_hidden_states())
