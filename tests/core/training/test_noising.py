"""The forward process against ComfyUI's and DDPM's formulas written out."""

import math

import pytest
import torch
from fpga.fpga_core.training.method.noising import NoiseSchedule, Prediction, draw_normal

SIGMAS = torch.tensor([0.03, 0.5, 1.0, 14.6])
SHAPE = (4, 2, 3, 3)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", list(Prediction))
def test_noise_and_targets(prediction):
    schedule, latents, noise = NoiseSchedule.from_sigmas(SIGMAS, prediction), normal(0), normal(1)
    timesteps = torch.tensor([3, 0, 2, 1])
    noised = schedule.noised(latents, noise, timesteps)
    target = schedule.target(latents, noise, timesteps)
    for row, timestep in enumerate(timesteps.tolist()):
        sigma = float(SIGMAS[timestep])
        scaled = (latents[row] + sigma * noise[row]) / math.sqrt(1 + sigma**2)
        assert torch.allclose(noised[row], scaled, atol=1e-6)
        # what ComfyUI makes of a perfect prediction is the picture
        if prediction is Prediction.EPS:
            denoised = scaled * math.sqrt(1 + sigma**2) - sigma * target[row]
        else:
            denoised = scaled / math.sqrt(1 + sigma**2) - sigma / math.sqrt(1 + sigma**2) * target[row]
        assert torch.allclose(denoised, latents[row], atol=1e-5)


def test_all_timesteps_are_drawn_alike():
    schedule = NoiseSchedule.from_sigmas(SIGMAS, Prediction.EPS)
    drawn = schedule.draw_timesteps(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.bincount() / 40_000, torch.full((4,), 0.25), atol=0.01)


def test_draws_follow_the_generator():
    one, same, other = (draw_normal(normal(0), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == SHAPE


@pytest.mark.parametrize("prediction", list(Prediction))
def test_min_snr_weights_what_the_prediction_does_not(prediction):
    """The loss of z0 that a prediction's error means, times the weight: its own up to an SNR of gamma, then gamma."""
    schedule = NoiseSchedule.from_sigmas(SIGMAS, prediction)
    timesteps, gamma = torch.arange(4), 5.0
    weights = schedule.min_snr_weights(timesteps, gamma)
    for timestep, weight in zip(timesteps.tolist(), weights.tolist(), strict=True):
        ratio = 1 / float(SIGMAS[timestep]) ** 2
        of_z0 = ratio if prediction is Prediction.EPS else ratio + 1  # |error|^2 over that of z0
        assert weight * of_z0 == pytest.approx(min(ratio, gamma), rel=1e-6)
