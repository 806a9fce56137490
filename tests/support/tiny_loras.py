"""LoRAs of small models, with seeded random weights."""

import torch
from fpga.fpga_core.identity.identity import PersonLora


def lora_of(model, seed: int) -> PersonLora:
    """A LoRA of every convolution and linear layer of a model, at strength 0.8."""
    return PersonLora(f"lora {seed}", random_lora(model.model.diffusion_model, seed), 0.8)


def random_lora(network: torch.nn.Module, seed: int, rank=2, alpha=1.0, scale=0.3) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA's file, in the most common naming."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for path, module in network.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            out, inner, *kernel = module.weight.shape
            base = f"diffusion_model.{path}"
            up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
            down = torch.randn(rank, inner, *kernel, generator=generator)
            weights[f"{base}.lora_up.weight"] = scale * up
            weights[f"{base}.lora_down.weight"] = down / down[0].numel() ** 0.5
            weights[f"{base}.alpha"] = torch.tensor(alpha)
    return weights
