"""What a model says about the RepControlNets in its weights: after saving, loading and merging, and to whom."""

import logging

import comfy.controlnet
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_model_merging import ModelMergeSimple
from eq1_reference import relative_error
from fpga.fpga_core.errors import PatchConflictError
from fpga.fpga_core.patching.conditioning import add_control
from fpga.fpga_core.patching.repcontrolnet.apply import (
    BranchMode,
    RepControlNetSettings,
    apply_branch,
    apply_repcontrolnet,
)
from fpga.fpga_core.patching.repcontrolnet.carried import carried_branches
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.repcontrolnet.saving import save_folded_model
from random_branches import random_branch
from tiny_controlnets import tiny_controlnet
from tiny_models import conditioning, sample, tiny_model

HINT = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def branch(model):
    return random_branch(model.model.diffusion_model)


def loaded_from(path: str, seed: int = 0):
    """A model as the host's loaders give it: they note the file that they read."""
    model = tiny_model(seed)
    model.cached_patcher_init = (comfy.sd.load_diffusion_model, (path, {}))
    return model


def carried(model) -> list[tuple]:
    return [(record.form, record.alpha, record.beta) for record in carried_branches(model)]


def merged(first, second, ratio=0.5):
    return ModelMergeSimple().merge(first, second, ratio)[0]


# The memory of folds


def test_a_saved_fold_is_remembered_with_its_weights(model, branch, tmp_path):
    folded = fold_branch(model, branch, alpha=0.7, beta=0.4)
    saved = save_folded_model(folded, branch, str(tmp_path / "folded"))
    assert carried(loaded_from(saved.model_path)) == [("folded", 0.7, 0.4)]


def test_a_second_fold_of_a_saved_one_is_noticed(model, branch, tmp_path):
    saved = save_folded_model(fold_branch(model, branch), branch, str(tmp_path / "folded"))
    again = loaded_from(saved.model_path)
    for mode in (BranchMode.FOLDED, BranchMode.LIVE):
        with pytest.raises(PatchConflictError, match="already carries the RepControlNet 'pose.safetensors'"):
            apply_branch(again, branch, RepControlNetSettings(mode=mode))
    unpatched, note = apply_branch(again, branch)
    assert unpatched is again
    assert note == "pose.safetensors: hint encoder only, the model's file carries the fold"


def test_another_branch_on_a_saved_fold_is_saved_with_it(model, branch, tmp_path):
    other = random_branch(model.model.diffusion_model, seed=5)
    first = save_folded_model(fold_branch(model, branch, alpha=0.7), branch, str(tmp_path / "first"))
    both = fold_branch(loaded_from(first.model_path), other, beta=0.3)
    second = save_folded_model(both, other, str(tmp_path / "second"))
    assert carried(loaded_from(second.model_path)) == [("folded", 0.7, 1.0), ("folded", 1.0, 0.3)]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_from_file", [True, False])
def test_a_merge_makes_the_weights_of_a_fold_unknown(model, branch, tmp_path, caplog, is_first, is_from_file):
    folded = fold_branch(model, branch)
    if is_from_file and is_first:
        saved = save_folded_model(folded, branch, str(tmp_path / "folded"))
        folded = loaded_from(saved.model_path)
    elif is_from_file:
        folded = merged(folded, tiny_model(seed=3))  # of a merge of a merge
    both = [folded, tiny_model(seed=4)]
    mixed = merged(*(both if is_first else reversed(both)))
    assert carried(mixed) == [("unknown", None, None)]
    with caplog.at_level(logging.WARNING, "fpga"):
        fold_branch(mixed, branch)
    assert "how strongly it still does is unknown" in caplog.text
    saved = save_folded_model(mixed, branch, str(tmp_path / "merged"))
    assert carried(loaded_from(saved.model_path)) == [("unknown", None, None)]


def test_a_merge_of_plain_models_carries_nothing(branch, caplog):
    plain = merged(tiny_model(seed=1), tiny_model(seed=2))
    assert carried(plain) == []
    with caplog.at_level(logging.WARNING, "fpga"):
        fold_branch(plain, branch)
    assert not caplog.records


@pytest.mark.parametrize("header", ["no json", '{"a": 1}', '[{"name": 1}]', "[3]"])
def test_a_strange_header_is_no_memory(header, tmp_path):
    path = str(tmp_path / "strange.safetensors")
    comfy.utils.save_torch_file({"a": torch.zeros(1)}, path, metadata={"fpga.branches": header})
    assert carried(loaded_from(path)) == []
    assert carried(loaded_from(str(tmp_path / "gone.ckpt"))) == []


# Those who read the base's weights


def control_lora(model) -> comfy.controlnet.ControlLora:
    """A control-LoRA: a low-rank change of each of the base's self attentions, and what the base does not have."""
    generator = torch.Generator().manual_seed(6)
    base = model.model.diffusion_model.state_dict()
    weights = {}
    for name, tensor in tiny_controlnet().control_model.state_dict().items():
        if name not in base:
            weights[name] = tensor
        elif name.endswith("attn1.to_q.weight"):
            path = name.removesuffix(".weight")
            weights[f"{path}.up"] = torch.randn(tensor.shape[0], 2, generator=generator)
            weights[f"{path}.down"] = 0.1 * torch.randn(2, tensor.shape[1], generator=generator)
    return comfy.controlnet.ControlLora(weights)


def controlled(control, positive, negative):
    control.set_cond_hint(HINT.movedim(-1, 1), 1.0, (0.0, 1.0))
    return add_control(positive, negative, control)


def as_plain_controlnet(model, lora):
    """The same control with the base's own weights written into it, which reads no other model."""
    control = tiny_controlnet()
    state = control.control_model.state_dict()
    base = model.model.diffusion_model.state_dict()
    for name in state:
        path = name.removesuffix(".weight")
        state[name] = lora.control_weights.get(name, base.get(name))
        if f"{path}.up" in lora.control_weights:
            state[name] = base[name] + lora.control_weights[f"{path}.up"] @ lora.control_weights[f"{path}.down"]
    control.control_model.load_state_dict(state)
    return control


@pytest.mark.parametrize("mode", [BranchMode.AUTO, BranchMode.LIVE])
def test_a_control_lora_reads_the_base_beside_a_branch(model, branch, mode):
    texts = conditioning(1), conditioning(2)
    lora = control_lora(model)
    settings = RepControlNetSettings(mode=mode)
    expected = apply_repcontrolnet(
        model,
        *controlled(as_plain_controlnet(model, lora), *texts),
        branch=branch,
        image=HINT,
        settings=RepControlNetSettings(mode=BranchMode.LIVE),
    )
    applied = apply_repcontrolnet(model, *controlled(lora, *texts), branch=branch, image=HINT, settings=settings)
    assert "live" in applied.note
    right = sample(expected.model, expected.positive, expected.negative)
    actual = sample(applied.model, applied.positive, applied.negative)
    assert relative_error(actual, right) < 1e-5
    folded = apply_repcontrolnet(
        model,
        *controlled(lora, *texts),
        branch=branch,
        image=HINT,
        settings=RepControlNetSettings(mode=BranchMode.FOLDED),
    )
    wrong = sample(folded.model, folded.positive, folded.negative)
    assert relative_error(wrong, right) > 1e-3  # what the warning is about


def test_a_fold_beside_a_control_lora_is_warned_of(model, branch, caplog):
    """On the node if the control-LoRA comes before it, and on the sampler in any case."""
    texts = conditioning(1), conditioning(2)
    settings = RepControlNetSettings(mode=BranchMode.FOLDED)
    before = apply_repcontrolnet(
        model, *controlled(control_lora(model), *texts), branch=branch, image=HINT, settings=settings
    )
    assert "Warning: the RepControlNet 'pose.safetensors' is folded" in before.note
    after = apply_repcontrolnet(model, *texts, branch=branch, image=HINT)
    positive, negative = controlled(control_lora(model), after.positive, after.negative)
    for run in ((before.model, before.positive, before.negative), (after.model, positive, negative)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fpga"):
            sample(*run, steps=1)
        assert "set mode to 'live', or to 'auto'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fpga"):
        sample(after.model, after.positive, after.negative, steps=1)
    assert not caplog.records
