"""CLIP-I, CLIP-T, DINO and FID on small random models, against transformers, torchmetrics and torch-fidelity."""

import json

import comfy.clip_vision
import numpy as np
import pytest
import torch
import torch_fidelity.metric_fid
from fpga.fpga_core.errors import CheckpointReadError, InvalidInputError, MissingModelError
from fpga.fpga_core.evaluation.clip_text import ClipText
from fpga.fpga_core.evaluation.frechet import frechet_distance
from fpga.fpga_core.evaluation.similarity import prompt_similarities, reference_similarities
from fpga.fpga_core.patching.picture_embedding import CLIP, DINO, embed_pictures
from safetensors.torch import load_file
from torchmetrics.functional.multimodal import clip_score
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

SIDE, DIM = 56, 16
VISION = {
    "hidden_size": 32,
    "image_size": SIDE,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "patch_size": 14,
    "projection_dim": DIM,
    "hidden_act": "gelu",
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 30,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "projection_dim": DIM,
}
DINO_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": SIDE, "patch_size": 14}
PROMPTS = ["abc", "ca b", "bbb a", "c"]
TOLERANCE = 1e-4


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Gives every parameter other values: biases and norms would start at 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noisy = parameter.data + 0.1 * torch.randn(parameter.shape, generator=generator)
        parameter.data = noisy.half().float()  # the host holds float16 on a CPU
    return model.eval()


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    return shaken(CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=DIM)))


@pytest.fixture(scope="module")
def processor(tmp_path_factory) -> CLIPProcessor:
    folder = tmp_path_factory.mktemp("tokenizer")
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "c", "a</w>", "b</w>", "c</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return CLIPProcessor(pictures, tokenizer)


@pytest.fixture(scope="module")
def clip_folder(clip, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    return folder


def host_model(weights: dict[str, torch.Tensor], **config) -> comfy.clip_vision.ClipVisionModel:
    model = comfy.clip_vision.ClipVisionModel({"num_channels": 3, **config})
    missing, _ = model.load_sd({name: tensor.clone() for name, tensor in weights.items()})
    assert not missing
    return model


@pytest.fixture(scope="module")
def clip_vision(clip) -> comfy.clip_vision.ClipVisionModel:
    return host_model(clip.state_dict(), model_type=CLIP[0], **VISION)


@pytest.fixture(scope="module")
def dino() -> Dinov2Model:
    return shaken(Dinov2Model(Dinov2Config(**DINO_SIZES)))


@pytest.fixture(scope="module")
def dino_vision(dino, tmp_path_factory) -> comfy.clip_vision.ClipVisionModel:
    sizes = {**DINO_SIZES, "layer_norm_eps": dino.config.layer_norm_eps, "use_swiglu_ffn": False}
    normalised = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    folder = tmp_path_factory.mktemp("dino")
    dino.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")  # with the published names
    return host_model(weights, model_type=DINO[0], **sizes, **normalised)


class Pooled:
    """A CLIP whose features are tensors, as torchmetrics expects; transformers wraps them since its version 5."""

    def __init__(self, clip: CLIPModel) -> None:
        self.clip, self.config = clip, clip.config

    def to(self, device) -> "Pooled":
        return self

    def get_image_features(self, *args, **kwargs) -> torch.Tensor:
        return self.clip.get_image_features(*args, **kwargs).pooler_output

    def get_text_features(self, *args, **kwargs) -> torch.Tensor:
        return self.clip.get_text_features(*args, **kwargs).pooler_output


def pictures(num: int, seed: int = 0) -> torch.Tensor:
    """(num, height, width, 3): of the encoders' size, so that nothing is resized, and of whole bytes."""
    noise = torch.rand(num, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(seed))
    return (noise * torch.rand(num, 1, 1, 3, generator=torch.Generator().manual_seed(seed + 1)) * 255).round() / 255


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.uint8).movedim(-1, 1)  # BHWC -> BCHW


def test_clip_i_is_transformers(clip, clip_vision, processor):
    images, references = pictures(4), pictures(3, seed=7)
    expected = []
    with torch.no_grad():
        sides = [
            clip.get_image_features(**processor(images=list(as_bytes(one)), return_tensors="pt")).pooler_output
            for one in (images, references)
        ]
    expected = torch.cosine_similarity(sides[0][:, None], sides[1][None], dim=-1).mean(dim=1)
    ours = [embed_pictures(clip_vision, list(one), kinds=CLIP) for one in (images, references)]
    found = reference_similarities(*ours)
    assert np.abs(found - expected.numpy()).max() <= TOLERANCE
    assert np.ptp(found) > 100 * TOLERANCE  # it tells the pictures apart


def test_clip_t_is_torchmetrics(clip, clip_vision, clip_folder, processor):
    images = pictures(4)
    embedded = embed_pictures(clip_vision, list(images), kinds=CLIP)
    found = prompt_similarities(embedded, ClipText(clip_folder).embed(PROMPTS))
    for picture, prompt, ours in zip(as_bytes(images), PROMPTS, found, strict=True):
        expected = float(clip_score(picture, prompt, model_name_or_path=lambda: (Pooled(clip), processor)))
        assert max(ours, 0) == pytest.approx(expected / 100, abs=TOLERANCE)
    inputs = processor(text=PROMPTS, images=list(as_bytes(images)), return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = clip(**inputs).logits_per_image.diagonal() / clip.logit_scale.exp()
    assert np.abs(found - logits.numpy()).max() <= TOLERANCE
    assert np.ptp(found) > 100 * TOLERANCE


def test_dino_is_transformers(dino, dino_vision):
    images, references = pictures(4), pictures(3, seed=7)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        sides = [dino(((one - mean) / std).movedim(-1, 1)).pooler_output for one in (images, references)]
    expected = torch.cosine_similarity(sides[0][:, None], sides[1][None], dim=-1).mean(dim=1)
    found = reference_similarities(*[embed_pictures(dino_vision, list(o), kinds=DINO) for o in (images, references)])
    assert np.abs(found - expected.numpy()).max() <= TOLERANCE
    assert np.ptp(found) > 100 * TOLERANCE


def test_fid_is_torch_fidelitys_on_the_same_features(clip_vision):
    first, second = (
        torch.from_numpy(embed_pictures(clip_vision, list(pictures(40, seed)), kinds=CLIP)).double() for seed in (0, 9)
    )
    statistics = [torch_fidelity.metric_fid.fid_features_to_statistics(one) for one in (first, second)]
    expected = torch_fidelity.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    ours = frechet_distance(first.numpy(), second.numpy())
    assert expected["frechet_inception_distance"] > 100 * TOLERANCE
    assert ours == pytest.approx(expected["frechet_inception_distance"], abs=TOLERANCE)


def test_an_encoder_of_another_kind_is_refused(clip_vision):
    with pytest.raises(InvalidInputError, match="load a dinov2 or dinov3 for this score; this encoder is clip_vision"):
        embed_pictures(clip_vision, list(pictures(1)), kinds=DINO)


def test_a_folder_that_is_not_a_clip_is_refused(tmp_path, clip_folder):
    with pytest.raises(MissingModelError, match=r"has no config\.json"):
        ClipText(tmp_path)
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(CheckpointReadError, match="is not a CLIP of transformers"):
        ClipText(tmp_path)
