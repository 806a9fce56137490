"""What ComfyUI itself does after an error, without the pack: what the documentation may promise rests on it."""

import comfy.model_management
import pytest
import torch
from tiny_models import conditioning, sample, tiny_model

KEY = "diffusion_model.input_blocks.0.0.weight"


@pytest.fixture
def patched():
    """A model with a weight patch of the host, as a LoRA or a fold is one.

    No other model is loaded: models that earlier tests have left would be half unloaded by the errors.
    """
    comfy.model_management.unload_all_models()
    model = tiny_model().clone()
    model.add_patches({KEY: ("diff", (0.3 * torch.ones(32, 4, 3, 3),))})
    return model


def failing(*args, **kwargs):
    raise RuntimeError("out of memory")


@torch.inference_mode()
def test_an_error_while_unpatching_leaves_later_runs_without_patches_until_all_models_are_unloaded(
    patched, monkeypatch
):
    """docs/repcontrolnet.md says so, with the remedy. If this fails, the host is mended: say less there."""
    texts = conditioning(1), conditioning(2)
    plain, right = (sample(model, *texts, steps=1) for model in (tiny_model(), patched))
    with monkeypatch.context() as patch:
        patch.setattr(patched.model, "to", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            comfy.model_management.unload_all_models()
    assert torch.equal(sample(patched, *texts, steps=1), plain)  # without a word
    comfy.model_management.unload_all_models()
    assert torch.equal(sample(patched, *texts, steps=1), right)


@torch.inference_mode()
def test_an_error_while_patching_does_no_harm(patched, monkeypatch):
    texts = conditioning(1), conditioning(2)
    right = sample(patched, *texts, steps=1)
    comfy.model_management.unload_all_models()
    with monkeypatch.context() as patch:
        patch.setattr(patched, "patch_weight_to_device", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            comfy.model_management.load_models_gpu([patched])
    assert torch.equal(sample(patched, *texts, steps=1), right)
