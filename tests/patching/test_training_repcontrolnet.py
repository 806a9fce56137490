"""Training of a RepControlNet and an identity on a small real model, compared with what the nodes then compute."""

from dataclasses import replace

import comfy.model_base
import pytest
import torch
from eq1_reference import relative_error
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError, UnsupportedModeError
from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.comfy.repcontrolnet import RepControlNetTraining
from fpga.fpga_core.training.method.curriculum import Curriculum
from fpga.fpga_core.training.method.denoising import denoising_loss
from fpga.fpga_core.training.method.folded_branch import TrainedPart
from fpga.fpga_core.training.method.fusion import Drops, MultiModeFusion
from fpga.fpga_core.training.method.identity_network import IdentityRecipe, Projections
from tiny_models import tiny_model, tiny_sdxl
from torch.nn import functional
from training_batches import tiny_batch
from training_runs import RECOGNISER, predicted, sampled_once, seeded, train

RECIPE = IdentityRecipe(recogniser=RECOGNISER)
OWN = replace(RECIPE, projections=Projections.OWN)
BOTH = Curriculum(MultiModeFusion(0, 0, 1000))
CLONED = 9  # the first iteration with Clone Face Tuning


def with_person(batch, row, adapter, branch=None, mode=BranchMode.FOLDED, clip_model=None):
    """Does what the nodes do to a model for one picture of a batch."""

    def patch(model, positive, negative):
        if branch is not None:
            image = batch.skeleton[row : row + 1].movedim(1, -1)
            applied = apply_repcontrolnet(
                model, positive, negative, branch=branch, image=image, settings=RepControlNetSettings(mode=mode)
            )
            model, positive, negative = applied.model, applied.positive, applied.negative
        if adapter is None:
            return model, positive, negative
        features = {} if clip_model is None else {clip_model: batch.clip_features[row : row + 1]}
        nulls = {key: torch.zeros_like(hidden) for key, hidden in features.items()}
        person = Identity("someone", {RECOGNISER: batch.embeddings[row : row + 1]}, features, nulls)
        cast = Cast((CastMember(person, Region.from_mask(batch.face_masks[row, 0])),), Extent(128, 128))
        return apply_cast(model, positive, negative, adapter=adapter, cast=cast)

    return patch


@pytest.mark.parametrize("is_v", [False, True], ids=["sd1", "sd2"])
@pytest.mark.parametrize("mode", [BranchMode.FOLDED, BranchMode.LIVE])
def test_the_exported_files_give_what_was_trained(tmp_path, mode, is_v):
    """The whole way: train, write, read, apply by the nodes' own functions, one call of the model by ComfyUI."""
    batch = tiny_batch()
    model = tiny_model(v_prediction=is_v, use_linear_in_transformer=is_v)
    recipe = replace(RECIPE, inner_dim=96) if is_v else RECIPE
    training = RepControlNetTraining.of(model, BOTH, recipe)
    train(training, batch, 3)
    files = training.export(tmp_path, "random numbers")
    assert [file.name for file in files] == ["repcontrolnet.safetensors", "identity_adapter.safetensors"]
    branch = read_repcontrolnet(*read_safetensors(files[0]), "branch")
    adapter = read_identity_adapter(*read_safetensors(files[1]), "adapter")
    assert branch.header.conditions == ("skeleton", "landmarks") and branch.header.trained_on == "random numbers"
    assert adapter.branch_hash == branch.header.branch_hash
    assert torch.equal(adapter.null, training.identity.null_tokens)
    expected, plain = predicted(training, batch), sampled_once(model, batch, 0, lambda *args: args, is_v=is_v)
    assert relative_error(plain, expected[:1]) > 1e-2
    for row in range(len(batch)):
        actual = sampled_once(model, batch, row, with_person(batch, row, adapter, branch, mode), is_v=is_v)
        assert relative_error(actual, expected[row : row + 1]) < 1e-4


@pytest.mark.parametrize("task", ["branch", "branch and identity", "identity"])
def test_sdxl_gives_what_was_trained_too(tmp_path, task):
    """SDXL reads the pooled text and the picture's size too; every kind of training that folds a branch."""
    batch, model = tiny_batch(pooled_dim=16), tiny_sdxl()
    part, ratio = (TrainedPart.KEYS_VALUES, 0.0) if task == "identity" else (TrainedPart.ALL, 0.1)
    recipe = None if task == "branch" else RECIPE
    training = RepControlNetTraining.of(model, BOTH, recipe, part=part, ratio=ratio)
    losses = train(training, batch, 4)
    assert losses[-1] < losses[0]
    train(training, batch, 1, iteration=CLONED)
    other = replace(batch, pooled=-10 * batch.pooled)
    assert relative_error(predicted(training, other), predicted(training, batch)) > 1e-3
    files = training.export(tmp_path, "")
    branch = read_repcontrolnet(*read_safetensors(files[0]), "branch")
    adapter = None if recipe is None else read_identity_adapter(*read_safetensors(files[1]), "adapter")
    expected, plain = predicted(training, batch), sampled_once(model, batch, 0, lambda *args: args)
    assert relative_error(plain, expected[:1]) > 1e-3
    for row in range(len(batch)):
        actual = sampled_once(model, batch, row, with_person(batch, row, adapter, branch))
        assert relative_error(actual, expected[row : row + 1]) < 1e-4


def test_a_model_that_reads_pooled_text_needs_it():
    training = RepControlNetTraining.of(tiny_sdxl(), BOTH)
    with pytest.raises(ShapeMismatchError, match="pooled text 0 wide, but the model reads 16"):
        training(tiny_batch(), 0, seeded())


@pytest.mark.parametrize("recipe", [OWN, replace(OWN, clip_model="clip-32x9-0", clip_dim=32)], ids=["face", "clip"])
def test_an_identity_alone_gives_what_was_trained(tmp_path, recipe):
    """Identity without control, with its own projections and with CLIP features."""
    batch = tiny_batch(clip_dim=recipe.clip_dim)
    training = RepControlNetTraining.of(tiny_model(), BOTH, recipe, part=TrainedPart.NONE)
    assert all(name.startswith("identity.") for name in training.state_dict())
    train(training, batch, 3, rate=3e-2)
    (file,) = training.export(tmp_path, "")
    adapter = read_identity_adapter(*read_safetensors(file), "adapter")
    assert adapter.branch_hash is None and adapter.projections.keys() == training.unet.layers.keys()
    expected, plain = predicted(training, batch), sampled_once(tiny_model(), batch, 1, lambda *args: args)
    assert relative_error(plain, expected[1:]) > 1e-2
    patch = with_person(batch, 1, adapter, clip_model=recipe.clip_model or None)
    assert relative_error(sampled_once(tiny_model(), batch, 1, patch), expected[1:]) < 1e-4


@pytest.mark.parametrize("recipe", [RECIPE, OWN], ids=["shared", "own"])
def test_an_identity_goes_on_from_its_own_file(tmp_path, recipe):
    batch = tiny_batch()
    training = RepControlNetTraining.of(tiny_model(), BOTH, recipe)
    train(training, batch, 3)
    branch, adapter = training.export(tmp_path, "")
    adapter = read_identity_adapter(*read_safetensors(adapter), "adapter")
    initial = read_repcontrolnet(*read_safetensors(branch), "branch")
    further = RepControlNetTraining.of(tiny_model(), BOTH, recipe, initial=initial, seed=1)
    assert relative_error(predicted(further, batch), predicted(training, batch)) > 1e-4
    further.identity.take(adapter)
    assert relative_error(predicted(further, batch), predicted(training, batch)) < 1e-6
    other = RepControlNetTraining.of(tiny_model(), BOTH, replace(recipe, inner_dim=96))
    with pytest.raises(InvalidInputError, match="'adapter' cannot be trained further"):
        other.identity.take(adapter)


def test_training_starts_from_a_multiple_of_the_base():
    """Eq. 5: an untrained branch folds to 1.1 W, and its condition image changes nothing yet."""
    batch, model = tiny_batch(), tiny_model()
    training = RepControlNetTraining.of(model, BOTH)
    base = dict(model.model.diffusion_model.named_parameters())
    assert all(torch.equal(weight, base[name] * 0.1) for name, weight in training.branch.weights.items())
    assert torch.equal(predicted(training, batch), predicted(training, replace(batch, skeleton=batch.landmarks)))
    scaled = tiny_model()
    with torch.no_grad():
        for name in training.branch.weights:
            scaled.model.diffusion_model.get_parameter(name).mul_(1.1)
    actual = sampled_once(scaled, batch, 0, lambda *args: args)
    assert relative_error(actual, predicted(training, batch)[:1]) < 1e-4


def test_a_run_continues_from_its_own_file(tmp_path):
    batch = tiny_batch()
    training = RepControlNetTraining.of(tiny_model(), BOTH)
    train(training, batch, 2)
    (file,) = training.export(tmp_path, "")
    branch = read_repcontrolnet(*read_safetensors(file), "branch")
    resumed = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE, part=TrainedPart.KEYS_VALUES, initial=branch)
    trained = {name for name, parameter in resumed.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"branch", "identity"}
    assert all("attn2/to_k" in name or "attn2/to_v" in name for name in trained if name.startswith("branch."))
    resumed.identity = None
    assert torch.equal(predicted(resumed, batch), predicted(training, batch))


def test_patches_of_the_model_are_part_of_the_base(tmp_path):
    """Earlier folds and merges are in the frozen weights, and the model is not changed."""
    batch, model = tiny_batch(), tiny_model()
    first = RepControlNetTraining.of(model, BOTH)
    train(first, batch, 2)
    folded = fold_branch(model, first.repcontrolnet(""))
    before = {name: tensor.clone() for name, tensor in model.model.diffusion_model.state_dict().items()}
    second = RepControlNetTraining.of(folded, BOTH)
    expected = {name: before[name] + weight for name, weight in first.branch.weights.items()}
    found = second.unet.network.state_dict()
    assert all(torch.allclose(found[name], weight, atol=1e-6) for name, weight in expected.items())
    folded.detach()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.diffusion_model.state_dict().items())


@pytest.mark.parametrize("iteration", [0, CLONED], ids=["plain", "cloned"])
def test_gradients_reach_everything_that_is_trained_and_nothing_of_the_base(iteration):
    model = tiny_model()
    training = RepControlNetTraining.of(model, BOTH, RECIPE)
    train(training, tiny_batch(), 1)  # the zero convolution hides the adapter from the first gradient
    training.zero_grad()
    training(tiny_batch(64, 8, 8), iteration, seeded())["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in training.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    for network in (training.unet.network, model.model.diffusion_model):
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
    assert not any("unet" in name or "base" in name for name in training.state_dict())


@pytest.mark.parametrize("mode", ["no face", "nobody dropped", "everybody dropped"])
def test_every_parameter_takes_part_in_every_batch(mode):
    """Training on several devices waits for each parameter's gradient."""
    batch = tiny_batch()
    if mode == "no face":
        batch = replace(batch, face_masks=torch.zeros_like(batch.face_masks))
    drops = Drops(0, 0.5 if mode == "everybody dropped" else 0)
    training = RepControlNetTraining.of(tiny_model(), replace(BOTH, drops=drops), RECIPE)
    parts = training(batch, CLONED, seeded())
    parts["loss"].backward()
    assert all(parameter.grad is not None for parameter in training.parameters())
    assert all(part.isfinite() for part in parts.values()) and (mode != "no face" or parts["l_cfa"] == 0)


def test_the_same_generator_gives_the_same_loss():
    training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE)
    for iteration in (0, CLONED):
        one, same, other = (training(tiny_batch(), iteration, seeded(seed))["loss"] for seed in (1, 1, 2))
        assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_loss_is_eq_4():
    training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE)
    parts = training(tiny_batch(), CLONED, seeded())
    assert set(parts) == {"loss", "l_cldm", "l_cfa", "cfa_feature_norm"}
    assert parts["l_cfa"] > 0 and parts["cfa_feature_norm"] > 0
    assert torch.isclose(parts["loss"], parts["l_cldm"] + 0.2 * parts["l_cfa"])
    assert set(training(tiny_batch(), CLONED - 1, seeded())) == {"loss", "l_cldm"}


def test_faces_count_as_much_more_as_asked_and_by_default_not_at_all():
    predicted, target, mask = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 2, 2)
    mask[..., 0, 0], target[..., 0, 0], target[..., 1, 1] = 1, 1, 1
    assert (
        denoising_loss(predicted, target, face_masks=mask, face_weight=0)
        == functional.mse_loss(predicted, target)
        == 2 / 4
    )
    assert torch.isclose(
        denoising_loss(predicted, target, face_masks=mask, face_weight=3), torch.tensor((4 + 1) / (4 + 3))
    )
    with pytest.raises(InvalidInputError, match="extra weight -1"):
        Curriculum(face_weight=-1)


def test_timesteps_with_little_noise_count_less_by_min_snr():
    """The loss of one picture is the plain one times its weight."""
    losses = {}
    for gamma in (0.0, 5.0):
        curriculum = replace(BOTH, min_snr_gamma=gamma)
        training = RepControlNetTraining.of(tiny_model(), curriculum, RECIPE)
        losses[gamma] = [float(training(tiny_batch(1), 0, seeded(seed))["l_cldm"]) for seed in range(4)]
    weights = []
    for seed in range(4):
        generator = seeded(seed)
        BOTH.drops.draw(1, generator)
        timesteps = training.base.schedule.draw_timesteps(1, generator)
        weights.append(float(training.base.schedule.min_snr_weights(timesteps, 5.0)))
    assert min(weights) < 0.9
    expected = [weight * loss for weight, loss in zip(weights, losses[0.0], strict=True)]
    assert losses[5.0] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InvalidInputError, match="gamma of min-SNR"):
        Curriculum(min_snr_gamma=-1)


def test_the_validation_loss_leaves_clone_face_tuning_out():
    training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE)
    losses = [training.validation_loss(tiny_batch(), iteration, seeded()).item() for iteration in (CLONED, CLONED - 1)]
    assert losses == [training(tiny_batch(), CLONED - 1, seeded())["l_cldm"].item()] * 2


def test_checkpointing_changes_memory_alone():
    gradients = []
    for is_checkpointed in (False, True):
        training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE, is_checkpointed=is_checkpointed)
        training(tiny_batch(), CLONED, seeded())["loss"].backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in training.parameters()]))
    assert relative_error(*gradients) < 1e-5


def test_a_half_precision_base_trains_nearly_alike():
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE, dtype=dtype)
        assert all(parameter.dtype == torch.float32 for parameter in training.parameters())
        losses.append(train(training, tiny_batch(), 3)[-1])
    assert losses[0] == pytest.approx(losses[1], rel=0.03)


def test_training_works_inside_inference_mode():
    """ComfyUI runs nodes in inference mode. Models that are built there can be trained outside it."""
    with torch.inference_mode():
        model = tiny_model()
        training = RepControlNetTraining.of(model, BOTH, RECIPE)
    train(training, tiny_batch(), 1)


@pytest.mark.parametrize(
    "recipe, part",
    [(None, TrainedPart.ALL), (RECIPE, TrainedPart.ALL), (RECIPE, TrainedPart.NONE), (OWN, TrainedPart.NONE)],
    ids=["branch", "joint", "frozen shared", "own projections"],
)
def test_fifty_steps_lower_the_loss(recipe, part):
    curriculum = Curriculum(MultiModeFusion(0, 100, 0), drops=Drops(0, 0))
    training = RepControlNetTraining.of(tiny_model(), curriculum, recipe, part=part)
    losses = train(training, tiny_batch(), 50, rate=1e-3)
    assert losses[-1] < (0.8 if part is TrainedPart.ALL else 0.999) * losses[0]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(UnsupportedModeError, match="SD1.5"):
        refiner = tiny_sdxl()
        refiner.model.__class__ = comfy.model_base.SDXLRefiner
        RepControlNetTraining.of(refiner, BOTH)
    with pytest.raises(UnsupportedModeError, match="9 channels"):
        RepControlNetTraining.of(tiny_model(in_channels=9), BOTH)
    with pytest.raises(InvalidInputError, match="there is nothing to train"):
        RepControlNetTraining.of(tiny_model(), BOTH, part=TrainedPart.NONE)
    with pytest.raises(InvalidInputError, match="ratio"):
        RepControlNetTraining.of(tiny_model(), BOTH, ratio=-0.1)
    with pytest.raises(ShapeMismatchError, match="text 32 wide, but the model reads 4 and 64"):
        RepControlNetTraining.of(tiny_model(), BOTH)(tiny_batch(context_dim=32), 0, seeded())
    training = RepControlNetTraining.of(tiny_model(), BOTH, replace(RECIPE, clip_model="clip", clip_dim=32))
    with pytest.raises(InvalidInputError, match="CLIP-Vision features 32 wide"):
        training(tiny_batch(), 0, seeded())
    with pytest.raises(InvalidInputError, match="too small for Clone Face Tuning"):
        RepControlNetTraining.of(tiny_model(), BOTH)(tiny_batch(width=3), CLONED, seeded())


def test_mixed_precision_trains_nearly_alike():
    training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE)
    for iteration in (0, CLONED):
        exact = training(tiny_batch(), iteration, seeded())["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = training(tiny_batch(), iteration, seeded())["loss"]
        mixed.backward()
        assert mixed.dtype == torch.float32 and float(mixed.detach()) == pytest.approx(float(exact.detach()), rel=0.03)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in training.parameters())
