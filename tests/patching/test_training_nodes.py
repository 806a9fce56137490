"""The training nodes on a small real model: they save what they should, and nothing else changes."""

import json
import math
import shutil
from pathlib import Path

import comfy.model_management
import comfy.sd
import folder_paths
import numpy as np
import pytest
import torch
from fpga.fpga_core.checkpoints import hash_state_dict, read_safetensors
from fpga.fpga_core.errors import (
    InvalidInputError,
    ResumeMismatchError,
    TrainingCheckpointError,
    TrainingDataError,
)
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from fpga.fpga_core.training.comfy.encoding import ComfyEncoder, text_encoder_key
from fpga.fpga_core.training.comfy.in_graph import keep_file
from fpga.fpga_core.training.data.writing import write_header
from fpga.fpga_core.training.engine.saved_states import newest_state, read_state
from fpga.nodes.training import TrainIdentity, TrainRepControlNet
from tiny_faces import tiny_vae
from tiny_models import conditioning, sample, tiny_model, tiny_sdxl
from tiny_training import tiny_clip
from training_samples import random_sample, write_samples

WIDGETS = {
    "landmarks_steps": 1,
    "skeleton_steps": 1,
    "both_steps": 2,
    "clone_every": 2,
    "batch_size": 1,
    "accumulation": 2,
    "learning_rate": 1e-3,
    "seed": 1,
    "precision": "no",
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="module")
def models():
    return {"model": tiny_model(), "clip": tiny_clip(), "vae": tiny_vae()}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """ComfyUI's folders, somewhere else, with a training set in the input folder."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    for name in ("controlnet", "fpga"):
        extensions = folder_paths.folder_names_and_paths[name][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / "models" / name)], extensions))
    write_samples(tmp_path / "input" / "portraits", 3)
    write_header(tmp_path / "input" / "portraits", recogniser=BUFFALO_L)
    return tmp_path


class OneFace:
    """A face analysis that sees one face in every picture, all the same."""

    description, recogniser = "one face", BUFFALO_L

    def __init__(self):
        self.seen = []

    def find_faces(self, pictures):
        self.seen += pictures
        points = np.array([[30, 40], [50, 40], [40, 55], [32, 65], [48, 65]], dtype=np.float32)
        embedding = np.linspace(-1, 1, 512, dtype=np.float32)
        return [(Face(Box(20, 20, 60, 80), keypoints=points, embeddings={BUFFALO_L: embedding}),) for _ in pictures]


def execute(node, models, output_name="mine", **changed):
    with torch.inference_mode():  # as ComfyUI runs nodes
        return node.execute(**{**models, "data": "portraits", "output_name": output_name, **WIDGETS, **changed}).args


def test_a_repcontrolnet_is_trained_saved_and_given(models, folders):
    before = hash_state_dict(models["model"].model.state_dict())
    untrained = sample(models["model"], conditioning(), conditioning(2))
    branch, losses, curves, report = execute(TrainRepControlNet, models)
    assert hash_state_dict(models["model"].model.state_dict()) == before
    assert torch.equal(sample(models["model"], conditioning(), conditioning(2)), untrained)
    assert len(losses["loss"]) == 4 and all(map(math.isfinite, losses["loss"]))
    assert curves.shape[0] == 1 and curves.shape[-1] == 3 and curves.min() >= 0 and curves.max() <= 1
    saved = folders / "models" / "controlnet" / "mine_00001.safetensors"
    assert str(saved) in report and json.loads(read_safetensors(saved)[1]["conditions"]) == ["skeleton", "landmarks"]
    assert branch.header.trained_on == "portraits: 3 samples, 4 iterations"
    base = models["model"].model.diffusion_model.state_dict()
    moved = [name for name, weight in branch.weights.items() if not torch.equal(weight, 0.1 * base[name])]
    assert len(moved) == len(branch.weights)  # every copy has learnt


def test_an_identity_is_trained_with_the_projections_it_is_read_through(models, folders):
    adapter, branch, losses, _, report = execute(TrainIdentity, models)
    assert adapter.recogniser == BUFFALO_L and adapter.branch_hash == branch.header.branch_hash
    assert (folders / "models" / "fpga" / "mine_00001.safetensors").exists() and "mine_00001" in report
    moved = {name for name, weight in branch.weights.items() if weight.any()}
    assert moved == {name for name in branch.weights if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert len(losses["loss"]) == 4


def test_faces_are_recognised_where_no_embedding_is_stored(models, folders):
    write_samples(folders / "input" / "photos", 2, has_embedding=False)
    analysis = OneFace()
    adapter, *_ = execute(TrainIdentity, models, face_analysis=analysis, data="photos", clone_every=0)
    assert adapter.recogniser == BUFFALO_L and len(analysis.seen) == 2  # each face once
    with pytest.raises(InvalidInputError, match="needs a recogniser"):
        execute(TrainIdentity, models, data="photos", output_name="other")


def test_the_latents_are_those_of_comfyuis_own_vae_encode(models, folders):
    image = random_sample(0).image
    encoded = ComfyEncoder(models["model"], models["clip"], models["vae"], faces=None).encode_image(image)
    expected = models["vae"].encode(torch.from_numpy(image).float()[None] / 255)
    torch.testing.assert_close(encoded, 0.18215 * expected[0])


def test_a_caption_of_any_length_has_one_window_of_tokens(models):
    encoder = ComfyEncoder(models["model"], models["clip"], models["vae"], faces=None)
    for caption in ("", "a portrait", "a very long caption " * 60):
        text = encoder.encode_caption(caption)
        whole = models["clip"].encode_from_tokens(models["clip"].tokenize(caption))
        assert text.shape == (77, 64)
        torch.testing.assert_close(text, whole[0, :77])
        assert encoder.encode_pooled(caption) is None


def test_sdxl_also_reads_pooled_captions(models):
    encoder = ComfyEncoder(tiny_sdxl(), models["clip"], models["vae"], faces=None)
    for caption in ("", "a portrait"):
        expected = models["clip"].encode_from_tokens(models["clip"].tokenize(caption), return_pooled=True)
        torch.testing.assert_close(encoder.encode_caption(caption), expected[0][0, :77])
        torch.testing.assert_close(encoder.encode_pooled(caption), expected[1][0])


def test_a_text_encoder_is_named_by_the_weights_that_it_reads(models):
    """A checkpoint may not have the others, which are then uninitialised memory."""
    clip = tiny_clip()
    before = text_encoder_key(clip)
    with torch.no_grad():
        clip.cond_stage_model.clip_l.logit_scale += 1
        clip.cond_stage_model.clip_l.transformer.text_projection.weight += 1
    assert text_encoder_key(clip) == before
    skipping = clip.clone()
    skipping.clip_layer(-2)
    assert text_encoder_key(skipping) != before
    with torch.no_grad():
        clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm.bias += 1
    assert text_encoder_key(clip) != before


def test_cancel_saves_the_state_and_running_again_goes_on(models, folders, monkeypatch):
    """ComfyUI raises from inside the network, in the middle of an iteration."""
    whole = execute(TrainRepControlNet, models, "whole")
    asked = []

    def interrupt_at_the_second():
        asked.append(1)
        if len(asked) == 2:
            comfy.model_management.interrupt_current_processing()
        return comfy.model_management.interrupt_processing

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "processing_interrupted", interrupt_at_the_second)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            execute(TrainRepControlNet, models)
    state = read_state(newest_state(folders / "output" / "fpga_training" / "mine"))
    assert state.iteration == 1 and not (folders / "models" / "controlnet" / "mine_00001.safetensors").exists()
    branch, losses, *_ = execute(TrainRepControlNet, models)
    assert losses == whole[1]
    assert all(torch.equal(weight, whole[0].weights[name]) for name, weight in branch.weights.items())


def test_gradient_checkpointing_and_half_precision_train_too(models, folders):
    plain = execute(TrainRepControlNet, models, "plain")[1]["loss"]
    checkpointed = execute(TrainRepControlNet, models, "checkpointed", gradient_checkpointing=True)[1]["loss"]
    torch.testing.assert_close(torch.tensor(checkpointed), torch.tensor(plain))
    half = execute(TrainRepControlNet, models, "half", precision="bf16")[1]["loss"]
    torch.testing.assert_close(torch.tensor(half), torch.tensor(plain), rtol=0.05, atol=0.05)


def test_other_settings_under_the_same_name_are_refused(models, folders):
    execute(TrainRepControlNet, models)
    with pytest.raises(ResumeMismatchError, match=r"learning_rate was 0\.001 and is now 0\.002"):
        execute(TrainRepControlNet, models, learning_rate=0.002)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"data": "nowhere"}, TrainingDataError, "does not exist"),
        ({"data": "../output"}, InvalidInputError, "is not below ComfyUI's input folder"),
        ({"output_name": "../mine"}, InvalidInputError, "cannot be a file's name"),
        ({"landmarks_steps": 0, "skeleton_steps": 0, "both_steps": 0}, InvalidInputError, "stages of training"),
    ],
)
def test_bad_input_is_named(models, folders, changed, error, message):
    with pytest.raises(error, match=message):
        execute(TrainRepControlNet, models, **changed)


def test_pictures_that_do_not_fit_the_unet_are_named(models, folders):
    write_samples(folders / "input" / "odd", 1, width=72)
    with pytest.raises(TrainingDataError, match="is 72x64, but the model needs multiples of 32"):
        execute(TrainRepControlNet, models, data="odd")


def test_a_trained_file_reaches_the_loaders_whole_or_not_at_all(tmp_path, monkeypatch):
    source, models = tmp_path / "trained.safetensors", tmp_path / "models"
    source.write_bytes(b"whole")
    assert keep_file(source, models, "mine").read_bytes() == b"whole"

    def half(_, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(TrainingCheckpointError, match=r"mine_00002\.safetensors' cannot be written; free some disk"):
        keep_file(source, models, "mine")
    assert [file.name for file in models.iterdir()] == ["mine_00001.safetensors"]
