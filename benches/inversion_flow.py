"""The exactness of flow inversion: fixed-point repetitions, RF-Solver and FireFlow at equal model calls.

Every method inverts latents and samples back without guidance; the error is the latent's, relative to its norm, and its
median over the latents. In the first table, all methods have the same number of model calls for both ways together, and
spend them on as many steps as they afford: Euler's method with r repetitions takes 2 + r a step, RF-Solver (Wang et al.
2024) 4, and FireFlow (Deng et al. 2024) 2, and 2 more in all. In the second, all have the same number of steps.

The models have random weights, so only the order of the methods means something. A mixture of Gaussians, whose flow is
known exactly, stands in for a trained model.
"""

from collections.abc import Callable

import comfy.samplers
import comfy.utils
import torch
from _report import arguments, report
from comfy.samplers import KSAMPLER, CFGGuider
from fpga.fpga_core.restoration.attention import StepCounter
from fpga.fpga_core.restoration.sampling import invert
from tiny_transformers import TINY
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]

Errors = dict[str, str]

LEAST_SIGMA = 1e-3
"""The host gives a clean latent and not a velocity, from which none follows at 0."""


def direction(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    sigma = sigma.clamp(min=LEAST_SIGMA)
    return (x - denoise(x, sigma)) / sigma


def inverted(denoise: Denoiser, x: Tensor, sigmas: Tensor, repetitions: int) -> Tensor:
    """The pack's inversion, over ascending sigmas."""
    *_, last = invert(denoise, x, sigmas=sigmas.flip(0), repetitions=repetitions, counter=StepCounter())
    return last.latent


def euler(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (following - sigma) * direction(denoise, x, sigma)
    return x


def rf_solver(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """RF-Solver: its second-order Taylor step with a difference for the derivative is the midpoint method."""
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        half = (following - sigma) / 2
        middle = x + half * direction(denoise, x, sigma)
        x = x + 2 * half * direction(denoise, middle, sigma + half)
    return x


def fire_flow(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """FireFlow: the midpoint method, whose first evaluation is the last step's second."""
    velocity = direction(denoise, x, sigmas[0])
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        half = (following - sigma) / 2
        velocity = direction(denoise, x + half * velocity, sigma + half)
        x = x + 2 * half * velocity
    return x


METHODS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[[int], int]]] = {
    **{
        f"Euler, {repetitions} repetitions": (
            lambda denoise, x, sigmas, repetitions=repetitions: inverted(denoise, x, sigmas, repetitions),
            euler,
            lambda calls, repetitions=repetitions: calls // (2 + repetitions),
        )
        for repetitions in (0, 1, 2, 4)
    },
    "RF-Solver": (rf_solver, rf_solver, lambda calls: calls // 4),
    "FireFlow": (fire_flow, fire_flow, lambda calls: calls // 2 - 1),
}
"""How each method inverts (over ascending sigmas) and samples, and the steps that a number of model calls buys."""


def errors(denoise: Denoiser, latent: Tensor, schedule: Callable[[int], Tensor], *, calls: int, steps: int) -> Errors:
    """Returns each method's error for a number of model calls, or else for a number of steps."""
    found: Errors = {}
    for name, (invert_by, sample_by, affordable) in METHODS.items():
        sigmas = schedule(steps or affordable(calls)).to(latent)
        back = sample_by(denoise, invert_by(denoise, latent, sigmas.flip(0)), sigmas)
        relative = (back - latent).flatten(1).norm(dim=1) / latent.flatten(1).norm(dim=1)
        found[name] = f"{float(relative.median()):.2g}"
    return found


def on_model(name: str, **budget: int) -> Errors:
    """Returns the errors of every method on a tiny random model of a family."""
    family, found = TINY[name], {}
    model = family.model()
    sampling = model.get_model_object("model_sampling")

    def schedule(steps: int) -> Tensor:
        return comfy.samplers.calculate_sigmas(sampling, "simple", steps)

    def run(guided: Callable[..., Tensor], x: Tensor, sigmas: Tensor, *, extra_args: dict, **_: object) -> Tensor:
        def denoise(z: Tensor, sigma: Tensor) -> Tensor:
            return guided(z, sigma.expand(len(z)), **extra_args)

        found.update(errors(denoise, x, schedule, **budget))
        return x

    guider = CFGGuider(model)
    guider.inner_set_conds({"positive": family.prompt(guidance=1.0)})
    latent, ends = family.latents(4, 16, 16), torch.tensor([0.0, 0.5])  # the host only scales by them
    guider.sample(torch.zeros_like(latent), latent, KSAMPLER(run), ends, disable_pbar=True, seed=0)
    return found


def on_mixture(**budget: int) -> Errors:
    """Returns the errors on the flow from noise to equal Gaussians, each of deviation 0.2 around a centre."""
    generator = torch.Generator().manual_seed(0)
    centres, spread = torch.randn(6, 64, generator=generator), 0.2
    latent = centres.repeat(16, 1) + spread * torch.randn(96, 64, generator=generator)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:  # E[x0 | x] for x = (1 - sigma) x0 + sigma noise
        clean = 1 - sigma
        variance = clean**2 * spread**2 + sigma**2
        away = x[:, None] - clean * centres
        responsibility = torch.softmax(-away.square().sum(-1) / (2 * variance), dim=1)[..., None]
        return (responsibility * (centres + clean * spread**2 / variance * away)).sum(1)

    def schedule(steps: int) -> Tensor:
        times = torch.linspace(1, 0, steps + 1)
        return 3 * times / (1 + 2 * times)  # shifted by 3, as for Z-Image

    return errors(denoise, latent, schedule, **budget)


def main() -> None:
    options = arguments(__doc__)
    comfy.utils.PROGRESS_BAR_ENABLED = False
    names = ("Krea 2",) if options.tiny else tuple(TINY)
    calls, steps = (12, 3) if options.tiny else (60, 20)
    for title, budget in (
        (f"{calls} model calls", {"calls": calls, "steps": 0}),
        (f"{steps} steps", {"calls": 0, "steps": steps}),
    ):
        with torch.inference_mode():
            rows = [{"model": "mixture of Gaussians", **on_mixture(**budget)}]
            rows += [{"model": name, **on_model(name, **budget)} for name in names]
        report(f"Inversion and back with {title}", rows, options.json if budget["calls"] else None)


if __name__ == "__main__":
    main()
