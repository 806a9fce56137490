"""DDIM inversion on a denoiser that is known in closed form: the exact posterior mean of a Gaussian mixture."""

import math

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.restoration.attention import StepCounter
from fpga.fpga_core.restoration.sampling import check_sigmas, invert

CENTRES = torch.randn(6, 2, 2, 2, generator=torch.Generator().manual_seed(0)).double()
SPREAD = 0.4


def mixture_denoiser(x, sigma):
    """E[x0 | x] where x0 is drawn from equal Gaussians of deviation SPREAD around CENTRES, and x = x0 + sigma eps."""
    variance = SPREAD**2 + sigma**2
    distance = (x[:, None] - CENTRES).square().flatten(2).sum(-1)
    responsibility = torch.softmax(-distance / (2 * variance), dim=1)[..., None, None, None]
    towards = CENTRES + SPREAD**2 / variance * (x[:, None] - CENTRES)
    return (responsibility * towards).sum(1)


def schedule(steps: int) -> torch.Tensor:
    """Noise levels of Stable Diffusion at equally spaced timesteps, ending at 0."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    sigmas = ((1 - alphas) / alphas).sqrt()
    return torch.cat([sigmas[torch.linspace(999, 0, steps).round().long()], torch.zeros(1, dtype=torch.float64)])


def sample(denoise, x, sigmas):
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (following - sigma) * (x - denoise(x, sigma)) / sigma
    return x


def pictures(num: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(num, 2, 2, 2, generator=generator, dtype=torch.float64)
    return CENTRES[torch.randint(0, 6, (num,), generator=generator)] + SPREAD * noise


def round_trip_error(repetitions: int, steps: int = 30) -> float:
    z0, sigmas = pictures(), schedule(steps)
    *_, last = invert(mixture_denoiser, z0, sigmas=sigmas, repetitions=repetitions, counter=StepCounter())
    return float((sample(mixture_denoiser, last.latent, sigmas) - z0).norm() / z0.norm())


def test_round_trip_error_falls_with_each_repetition():
    errors = [round_trip_error(repetitions) for repetitions in (0, 1, 2, 4, 8)]
    assert all(later < earlier / 2 for earlier, later in zip(errors[:-1], errors[1:], strict=True)), errors
    assert errors[0] < 0.087  # the prototype without a predictor, on its trained model
    assert errors[-1] < 1e-5


def test_more_steps_are_closer_without_any_repetition():
    assert round_trip_error(0, 60) < round_trip_error(0, 30) < round_trip_error(0, 15)


def test_a_single_gaussian_reaches_the_noise_of_the_exact_solution():
    """Euler on dx/ds = x s / (s^2 + v) is a factor per step: the inversion must find each factor's inverse."""
    sigmas, variance = schedule(12), 0.7
    z0 = pictures()
    *_, last = invert(
        lambda x, sigma: x * variance / (variance + sigma**2), z0, sigmas=sigmas, repetitions=60, counter=StepCounter()
    )
    expected = z0
    for sigma, following in zip(sigmas[:-1].flip(0), sigmas[1:].flip(0), strict=True):
        expected = expected / (1 + (float(following) - float(sigma)) * float(sigma) / (float(sigma) ** 2 + variance))
    torch.testing.assert_close(last.latent, expected, rtol=1e-9, atol=1e-9)


def test_residual_is_that_of_the_last_evaluated_latent():
    z0, sigmas = pictures(3), schedule(5)
    evaluated = []

    def denoise(x, sigma):
        evaluated.append(x)
        return mixture_denoiser(x, sigma)

    steps = list(invert(denoise, z0, sigmas=sigmas, repetitions=1, counter=StepCounter()))
    assert len(evaluated) == 10
    for step, before in zip(steps, [z0, *[s.latent for s in steps[:-1]]], strict=True):
        at = evaluated[2 * step.step - 1]
        for item in range(3):
            solved = before[item] + (sigmas[-step.step - 1] - sigmas[-step.step]) * (
                at[item] - mixture_denoiser(at, step.sigma)[item]
            ) / float(step.sigma)
            torch.testing.assert_close(step.latent[item], solved)
            expected = math.dist(solved.flatten().tolist(), at[item].flatten().tolist()) / float(solved.norm())
            assert float(step.residual[item]) == pytest.approx(expected, rel=1e-9)


def test_the_counter_is_set_during_the_last_repetition_of_each_step_only():
    counter, seen = StepCounter(), []

    def denoise(x, sigma):
        seen.append((counter.current, round(float(sigma), 6)))
        return mixture_denoiser(x, sigma)

    sigmas = schedule(3)
    list(invert(denoise, pictures(1), sigmas=sigmas, repetitions=2, counter=counter))
    levels = [round(float(sigma), 6) for sigma in sigmas.flip(0)[1:]]
    assert seen == [(current, levels[t - 1]) for t in (1, 2, 3) for current in (None, None, t)]
    assert counter.current is None


def test_the_counter_is_reset_when_the_model_fails():
    counter = StepCounter()

    def fails(x, sigma):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(invert(fails, pictures(1), sigmas=schedule(3), repetitions=0, counter=counter))
    assert counter.current is None


@pytest.mark.parametrize(
    ("sigmas", "text"),
    [
        ([0.0], "at least one step"),
        ([], "at least one step"),
        ([[3.0, 0.0]], "at least one step"),
        ([0.0, 1.0, 2.0], "must descend"),
        ([3.0, 3.0, 0.0], "must descend"),
        ([3.0, 2.0, 1.0], "end at 1, but they must end at 0"),
        ([3.0, float("nan"), 0.0], "must descend"),
    ],
)
def test_sigmas_that_do_not_descend_to_zero_are_refused(sigmas, text):
    with pytest.raises(InvalidInputError, match=text):
        check_sigmas(torch.tensor(sigmas))
