"""A saved folded model is a plain file: the fold is in its weights, and the adapter beside it completes it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import CheckpointError, InvalidInputError, PatchConflictError, UnsupportedModeError
from fpga.fpga_core.patching.repcontrolnet.apply import (
    BranchMode,
    RepControlNetSettings,
    apply_branch,
    apply_repcontrolnet,
)
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.repcontrolnet.live import attach_branch
from fpga.fpga_core.patching.repcontrolnet.saving import save_folded_model
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from random_branches import random_branch
from tiny_models import conditioning, sample, tiny_model


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def branch(model):
    return random_branch(model.model.diffusion_model)


def test_the_saved_pair_makes_the_same_picture_elsewhere(model, branch, tmp_path):
    conds = conditioning(1), conditioning(2)
    picture = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    settings = RepControlNetSettings(mode=BranchMode.FOLDED, alpha=0.9, beta=1.1)
    folded = apply_repcontrolnet(model, *conds, branch=branch, image=picture, settings=settings)
    expected = sample(folded.model, folded.positive, folded.negative)

    saved = save_folded_model(folded.model, branch, str(tmp_path / "folded_00001_"))
    tensors, metadata = read_safetensors(saved.model_path)
    elsewhere = tiny_model(seed=99)
    elsewhere.model.diffusion_model.load_state_dict(
        {key.removeprefix("model.diffusion_model."): value for key, value in tensors.items()}
    )
    file = "folded_00001_adapter.safetensors"
    hint_encoder = read_repcontrolnet(*read_safetensors(saved.hint_encoder_path), name=file)
    applied = apply_repcontrolnet(elsewhere, *conds, branch=hint_encoder, image=picture)
    found = sample(applied.model, applied.positive, applied.negative)
    assert "hint encoder only" in applied.note
    assert float((found - expected).norm() / expected.norm()) <= 1e-6
    assert json.loads(metadata["fpga.branches"])[0]["branch_hash"] == branch.header.branch_hash


@pytest.mark.parametrize(
    ("prediction", "keys"),
    [
        (lambda m: m, set()),
        (lambda m: ModelSamplingDiscrete().patch(m, "v_prediction", False)[0], {"v_pred"}),
        (lambda m: ModelSamplingDiscrete().patch(m, "v_prediction", True)[0], {"v_pred", "ztsnr"}),
        (
            lambda m: ModelSamplingContinuousEDM().patch(m, "v_prediction", 80.0, 0.002)[0],
            {"edm_vpred.sigma_max", "edm_vpred.sigma_min"},
        ),
    ],
    ids=["eps", "v", "v zsnr", "v edm"],
)
def test_the_file_says_what_the_model_predicts_as_the_hosts_own_do(model, branch, tmp_path, prediction, keys):
    folded = fold_branch(prediction(model), branch)
    tensors, metadata = read_safetensors(save_folded_model(folded, branch, str(tmp_path / "m_")).model_path)
    assert {key for key in tensors if "diffusion_model" not in key} == keys
    assert metadata["modelspec.predict_key"] == ("v" if keys else "epsilon")
    if "edm_vpred.sigma_max" in keys:
        assert float(tensors["edm_vpred.sigma_max"]) == 80


def test_a_hint_encoder_alone_cannot_be_folded(model, branch, tmp_path):
    saved = save_folded_model(fold_branch(model, branch), branch, str(tmp_path / "m_"))
    hint_encoder = read_repcontrolnet(*read_safetensors(saved.hint_encoder_path), name="a.safetensors")
    for mode in (BranchMode.FOLDED, BranchMode.LIVE):
        with pytest.raises(UnsupportedModeError, match="choose mode 'adapter_only'"):
            apply_branch(model, hint_encoder, RepControlNetSettings(mode=mode))


def test_models_without_the_fold_are_refused_and_nothing_is_written(model, branch, tmp_path):
    other = fold_branch(model, random_branch(model.model.diffusion_model, seed=12))
    live = attach_branch(model, branch)
    for wrong, words in ((model, "does not carry"), (other, "does not carry"), (live, "runs live")):
        with pytest.raises(PatchConflictError, match=words):
            save_folded_model(wrong, branch, str(tmp_path / "m_"))
    with pytest.raises(InvalidInputError, match="both clip and vae"):
        save_folded_model(fold_branch(model, branch), branch, str(tmp_path / "m_"), clip=object())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left")])
def test_a_full_disk_is_named_and_leaves_no_half_file(model, branch, tmp_path, monkeypatch, error):
    def half(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(CheckpointError, match=r"m_\.safetensors' cannot be written; free some disk space"):
        save_folded_model(fold_branch(model, branch), branch, str(tmp_path / "m_"))
    assert list(tmp_path.iterdir()) == []


class PackedTensor(torch.Tensor):
    """As ComfyUI-GGUF's, with the name of its packing."""

    tensor_type = SimpleNamespace(name="Q4_K")


def test_a_gguf_model_is_refused_by_name(model, branch, tmp_path):
    folded = fold_branch(model, branch)
    layer = folded.model.diffusion_model.out[2]
    layer.weight = torch.nn.Parameter(layer.weight.data.as_subclass(PackedTensor), requires_grad=False)
    with pytest.raises(UnsupportedModeError, match=r"load the model from a safetensors file .* GGUF .*Q4_K"):
        save_folded_model(folded, branch, str(tmp_path / "m_"))
    assert list(tmp_path.iterdir()) == []
