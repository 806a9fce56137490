"""DIIR where a model's guidance or its prompts change from step to step."""

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from fpga.fpga_core.patching.restoration.samplers import RestorationSampler
from fpga.fpga_core.patching.restoration.sampling import invert_latent, restore_latent
from fpga.fpga_core.restoration.fusion import FusionSettings
from fpga.fpga_core.restoration.settings import InversionSettings
from tiny_models import conditioning, tiny_model

STEPS = 4


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def invert(model, positive):
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    settings = InversionSettings(repetitions=0, budget_mib=64)
    return invert_latent(model, positive, latent, sigmas=sigmas, settings=settings)


def features(inversion, step):
    return [inversion.cache.background(step, layer.slot, device=torch.device("cpu")) for layer in inversion.layers]


def between(prompt, start, end):
    """The prompt as Set Timestep Range gives it."""
    return [[text, {**options, "start_percent": start, "end_percent": end}] for text, options in prompt]


@pytest.mark.parametrize("guidance", [PerturbedAttentionGuidance, SelfAttentionGuidance])
def test_the_inversion_runs_without_the_models_guidance(model, guidance):
    """Both call the model again within a step, and one reads the negative, which an inversion does not have."""
    guided = guidance.execute(model, *((3.0,) if guidance is PerturbedAttentionGuidance else (0.5, 2.0))).result[0]
    (plain, kept), (inverted, inversion) = invert(model, conditioning(1)), invert(guided, conditioning(1))
    assert torch.equal(inverted, plain)
    for step in range(1, STEPS + 1):
        assert all(map(torch.equal, features(inversion, step), features(kept, step)))
    sampler = RestorationSampler(inversion=inversion, mask=torch.ones(1, 128, 128), settings=FusionSettings())
    conds = conditioning(1), conditioning(2)
    restored, unguided = (restore_latent(with_, *conds, cfg=3.0, sampler=sampler) for with_ in (guided, model))
    assert restored.isfinite().all() and not torch.equal(restored, unguided)


def test_prompts_that_follow_each_other_are_each_recorded_in_their_steps(model):
    """The host leaves a prompt out of the steps that it is not for; what is recorded is what acts."""
    first, second = conditioning(1), conditioning(9)
    inverted, inversion = invert(model, between(first, 0.0, 0.5) + between(second, 0.5, 1.0))
    _, of_second = invert(model, second)
    assert all(map(torch.equal, features(inversion, 1), features(of_second, 1)))  # the least noisy step comes first
    assert not torch.equal(inverted, invert(model, second)[0])
    sampler = RestorationSampler(inversion=inversion, mask=torch.ones(1, 128, 128), settings=FusionSettings())
    assert restore_latent(model, second, conditioning(2), cfg=3.0, sampler=sampler).isfinite().all()
