"""The world's autoencoder, in TAESD's layout: 8 times smaller, 4 channels, loaded by ComfyUI's own VAE code.

Close-ups come out well and small faces break, which is the problem that the paper's restoration is for.
"""

from __future__ import annotations

from pathlib import Path

import comfy.taesd.taesd
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss, relu

from .gallery import Gallery
from .loop import DEVICE, Recipe, autocast, train

RECIPE = Recipe(num_steps=2600, learning_rate=1.5e-3, ema=0.995)
BATCH, CROP_PX = 8, 64
EDGES_FROM = 0.3
"""Fraction of the run from which edges count too."""
SD15_SCALE = 0.18215
"""ComfyUI multiplies SD1.5 latents by this; the latents that the UNet sees have a deviation of 1."""


def initial_autoencoder() -> comfy.taesd.taesd.TAESD:
    """Residual branches start small, so that the network starts near a linear one."""
    autoencoder = comfy.taesd.taesd.TAESD()
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in autoencoder.modules():
            if isinstance(module, comfy.taesd.taesd.Block):
                module.conv[-1].weight *= 0.2
        autoencoder.taesd_encoder[-1].weight *= 0.3
    for scale in (autoencoder.vae_scale, autoencoder.vae_shift):
        scale.requires_grad_(False)
    return autoencoder.to(DEVICE, memory_format=torch.channels_last)


def as_tensor(pictures: np.ndarray) -> Tensor:
    """(batch, height, width, 3) uint8 -> (batch, 3, height, width) in [0, 1]."""
    return (torch.from_numpy(pictures).float() / 255).permute(0, 3, 1, 2).to(DEVICE, memory_format=torch.channels_last)


def train_autoencoder(pictures: Gallery, file: Path) -> comfy.taesd.taesd.TAESD:
    autoencoder = initial_autoencoder()

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        places = rng.integers(0, 9, (BATCH, 2)) * 8
        chosen = rng.integers(0, len(pictures), BATCH)
        crops = [
            pictures.pictures[i, y : y + CROP_PX, x : x + CROP_PX] for i, (y, x) in zip(chosen, places, strict=True)
        ]
        target = as_tensor(np.stack(crops))
        with autocast():
            latent = autoencoder.taesd_encoder(target).float()
            painted = autoencoder.taesd_decoder(latent)
        painted = painted.float()
        loss = l1_loss(painted, target) + mse_loss(painted, target) + 1e-3 * relu(latent.abs() - 2).square().mean()
        if step < EDGES_FROM * RECIPE.num_steps:
            return loss
        return loss + 0.5 * sum(l1_loss(painted.diff(dim=dim), target.diff(dim=dim)) for dim in (2, 3))

    train(autoencoder, RECIPE, loss_of, file)
    return normalise_latents(autoencoder, pictures)


@torch.no_grad()
def normalise_latents(autoencoder: comfy.taesd.taesd.TAESD, pictures: Gallery) -> comfy.taesd.taesd.TAESD:
    """Sets TAESD's scale and shift so that the UNet sees latents of mean 0 and deviation 1."""
    raw = torch.cat([autoencoder.taesd_encoder(as_tensor(pictures.pictures[i : i + 50])) for i in range(0, 1000, 50)])
    autoencoder.vae_scale.fill_(SD15_SCALE * raw.std())
    autoencoder.vae_shift.fill_(-raw.mean() / autoencoder.vae_scale)
    return autoencoder
