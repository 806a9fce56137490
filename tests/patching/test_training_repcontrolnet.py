"""Training of a RepControlNet and an identity on a small real model, held against what the nodes then compute."""

import pytest
import torch
from eq1_reference import relative_error
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import InvalidInputError, UnsupportedModeError
from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.identity import apply_cast
from fpga.fpga_core.patching.repcontrolnet import BranchMode, apply_repcontrolnet
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.comfy_attention import ReadIdentity, RecordedFeature
from fpga.fpga_core.training.comfy_repcontrolnet import RepControlNetTraining
from fpga.fpga_core.training.curriculum import Curriculum
from fpga.fpga_core.training.folded_branch import TrainedPart
from fpga.fpga_core.training.fusion import Drops, MultiModeFusion
from fpga.fpga_core.training.identity_network import IdentityRecipe, Projections
from tiny_models import tiny_model, tiny_sdxl
from training_batches import tiny_batch

RECOGNISER = "ab" * 32
RECIPE = IdentityRecipe(RECOGNISER)
BOTH = Curriculum(MultiModeFusion(0, 0, 1000))
NOTHING = torch.zeros(2, dtype=torch.bool)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(training, batch, num_steps: int, iteration: int = 0, rate: float = 3e-3, seed: int | None = 7) -> list[float]:
    """Steps of Adam on one batch; with a seed, on the same noise each time."""
    trained = [parameter for parameter in training.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, rate)
    losses = []
    for step in range(num_steps):
        generator = seeded(step if seed is None else seed)
        optimiser.zero_grad()
        loss = training(batch, iteration, generator)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def predicted(training, batch, timestep: int = 500, hint=None):
    """The trained network's prediction of every picture, identities included."""
    identity = None
    if training.identity is not None:
        tokens = training.identity.tokens(batch, NOTHING)
        identity = ReadIdentity(training.identity, tokens, batch.face_masks)
    times = torch.full((len(batch),), timestep)
    with torch.no_grad():
        return training.predict(batch.latents, times, batch.text, batch.skeleton, identity)


def sampled_once(model, batch, row, positive_of, timestep: int = 500):
    """What ComfyUI's own call of a patched model predicts for one picture, as eps."""
    import comfy.samplers
    import comfy.sampler_helpers

    seen = []

    def keep(args):
        seen.append(args["cond_denoised"] if "cond_denoised" in args else args["cond"])
        return args["denoised"]

    sampling = model.get_model_object("model_sampling")
    sigma = sampling.sigmas[timestep]
    noisy = batch.latents[row : row + 1] * (1 + sigma**2) ** 0.5  # the model divides by this
    positive = [[batch.text[row : row + 1], {}]]
    model, positive, negative = positive_of(model, positive, [[batch.text[row : row + 1], {}]])
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(1.0)
    found = []

    class Once(comfy.samplers.Sampler):
        def sample(self, wrapped, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):  # noqa: E501
            found.append(wrapped(noisy, sigma.expand(1), **extra_args))
            return latent_image

    guider.sample(torch.zeros_like(noisy), torch.zeros_like(noisy), Once(), torch.stack([sigma, sigma * 0]), seed=1)
    return (noisy - found[0]) / sigma  # x0 = x - sigma eps


@pytest.mark.parametrize("mode", [BranchMode.FOLDED, BranchMode.LIVE])
def test_the_exported_files_give_what_was_trained(tmp_path, mode):
    """The whole way: train, write, read, apply by the nodes' own functions, one call of the model by ComfyUI."""
    batch = tiny_batch()
    training = RepControlNetTraining.of(tiny_model(), BOTH, RECIPE)
    train(training, batch, 3)
    files = training.export(tmp_path, "random numbers")
    assert [file.name for file in files] == ["repcontrolnet.safetensors", "identity_adapter.safetensors"]
    branch = read_repcontrolnet(*read_safetensors(files[0]), "branch")
    adapter = read_identity_adapter(*read_safetensors(files[1]), "adapter")
    assert branch.header.conditions == ("skeleton", "landmarks") and branch.header.trained_on == "random numbers"
    assert adapter.branch_hash == branch.header.branch_hash
    assert torch.equal(adapter.null, training.identity.null_tokens)
    expected, model = predicted(training, batch), tiny_model()
    plain = sampled_once(model, batch, 0, lambda *args: args)
    assert relative_error(plain, expected[:1]) > 1e-2
    for row in range(len(batch)):

        def patched(model, positive, negative, row=row):
            image = batch.skeleton[row : row + 1].movedim(1, -1)
            applied = apply_repcontrolnet(model, positive, negative, branch, image, mode)
            person = Identity("someone", {RECOGNISER: batch.embeddings[row : row + 1]})
            region = Region.from_mask(batch.face_masks[row, 0])
            cast = Cast((CastMember(person, region),), Extent(128, 128))
            return apply_cast(applied.model, applied.positive, applied.negative, adapter, cast)

        assert relative_error(sampled_once(model, batch, row, patched), expected[row : row + 1]) < 1e-4
