"""Short runs of training on one batch, and one call of a patched model by ComfyUI to compare them with."""

import comfy.samplers
import torch
from fpga.fpga_core.training.method.identity_network import ReadIdentity

RECOGNISER = "ab" * 32


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(training, batch, num_steps: int, iteration: int = 0, rate: float = 3e-3) -> list[float]:
    """Returns the losses of this many steps of Adam on one batch with the same noise."""
    trained = [parameter for parameter in training.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, rate)
    losses = []
    for _ in range(num_steps):
        optimiser.zero_grad()
        loss = training(batch, iteration, seeded())["loss"]
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def predicted(training, batch, timestep: int = 500) -> torch.Tensor:
    """Returns the trained network's prediction for a batch's latents, with the skeleton and everyone's identity."""
    identity = None
    if training.identity is not None:
        tokens = training.identity.tokens(batch, torch.zeros(len(batch), dtype=torch.bool))
        identity = ReadIdentity(training.identity, tokens, batch.face_masks)
    times = torch.full((len(batch),), timestep)
    return training.predict(
        batch.latents, times, text=batch.text, hint=batch.skeleton, identity=identity, pooled=batch.pooled
    )


class OneCall(comfy.samplers.Sampler):
    """Calls the guided model once, on given latents."""

    def __init__(self, x, sigma):
        self.x, self.sigma = x, sigma

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        self.denoised = model_wrap(self.x, self.sigma.expand(1), **extra_args)
        return latent_image


@torch.no_grad()
def sampled_once(model, batch, row: int, patch, timestep: int = 500, is_v: bool = False) -> torch.Tensor:
    """Returns the prediction (eps or v) of ComfyUI's own call of a patched model for one picture's latents.

    Args:
        patch: (model, positive, negative) to the same three, patched.
    """
    sigma = model.get_model_object("model_sampling").sigmas[timestep]
    x = batch.latents[row : row + 1]
    noisy = x * (1 + sigma**2) ** 0.5  # ComfyUI divides by this
    pooled = {} if batch.pooled is None else {"pooled_output": batch.pooled[row : row + 1]}
    text = [[batch.text[row : row + 1], pooled]]
    model, positive, negative = patch(model, text, text)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(1.0)
    call = OneCall(noisy, sigma)
    guider.sample(torch.zeros_like(noisy), torch.zeros_like(noisy), call, torch.stack([sigma, 0 * sigma]), seed=1)
    if is_v:  # x0 = sqrt(a) x - sqrt(1 - a) v, with a = 1 / (1 + sigma^2)
        return (x / (1 + sigma**2) ** 0.5 - call.denoised) * (1 + sigma**2) ** 0.5 / sigma
    return (noisy - call.denoised) / sigma  # x0 = x - sigma eps
