"""What rounded weights do to a sampled latent."""

import comfy.sample
import torch


def sample(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 4, 16, 16, generator=generator)
    positive, negative = ([[torch.randn(1, 77, 768, generator=generator), {}]] for _ in range(2))
    latent = torch.zeros_like(noise)
    return comfy.sample.sample(
        model, noise, 10, 5.0, "ddim", "ddim_uniform", positive, negative, latent, disable_pbar=True, seed=0
    ).float()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> str:
    return f"{float((found - expected).norm() / expected.norm()):.1e}"
