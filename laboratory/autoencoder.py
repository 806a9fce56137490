"""The world's autoencoder, in TAESD's layout: 8 times smaller, 4 channels, loaded by ComfyUI's own VAE code.

It reproduces close-ups well and breaks small faces, which is the problem that the paper's restoration solves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import comfy.taesd.taesd
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..fpga_core.checkpoints import read_safetensors, write_safetensors
from ..fpga_core.shapes import Extent
from .close_ups import CLOSE_UP_PX, face_close_ups
from .gallery import SIZE_PX, Gallery
from .loop import DEVICE, Recipe, autocast, train

RECIPE = Recipe(num_steps=2600, learning_rate=1.5e-3, ema=0.995)
BATCH, CROP_PX = 8, 64
FACES_RECIPE = Recipe(num_steps=3000, learning_rate=1e-3, ema=0.995, seed=3)
FACES_BATCH, FACES_CROP_PX = 12, 48
"""The second part of the training crops faces, because the first part has seen enough of everything else."""
FINER_RECIPE = Recipe(num_steps=6000, learning_rate=6e-4, ema=0.998, seed=4)
NUM_CLOSE_UPS, CLOSE_UPS_BATCH, ANYWHERE_BATCH = 24000, 12, 4
"""The last part of the training takes faces of the sizes that must come out well, and a few crops from anywhere."""
LATENT_NOISE = 0.1
"""The largest deviation of the noise added to latents in the last part. It hides the small errors of a UNet."""
HEAD_WEIGHT, FEATURES_WEIGHT = 2.0, 4.0
"""What a head, and the eyes, brows, nose and mouth in it, add to a pixel's weight of 1 in the last part."""
EDGES_FROM = 0.3
"""The fraction of the run after which edges count too."""
PREFIX = "first_stage_model."
"""What the names of the autoencoder's tensors begin with in a checkpoint."""
SD15_SCALE = 0.18215
"""ComfyUI multiplies SD1.5 latents by this factor. The latents that the UNet sees have a deviation of 1."""


def initial_autoencoder() -> comfy.taesd.taesd.TAESD:
    """Returns a network that is nearly linear: its residual branches start small."""
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


def read_autoencoder(file: Path) -> comfy.taesd.taesd.TAESD:
    """Reads the autoencoder from a checkpoint of the world, or from its own file."""
    autoencoder = comfy.taesd.taesd.TAESD()
    tensors, _ = read_safetensors(file)
    autoencoder.load_state_dict(
        {name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items() if name.startswith(PREFIX)}
    )
    return autoencoder.to(DEVICE, memory_format=torch.channels_last)


def write_autoencoder(autoencoder: comfy.taesd.taesd.TAESD, file: Path) -> None:
    """Writes an autoencoder that `read_autoencoder` reads."""
    write_safetensors(file, {PREFIX + name: tensor for name, tensor in autoencoder.state_dict().items()}, {})


def as_tensor(pictures: np.ndarray) -> Tensor:
    """Converts (batch, height, width, 3) uint8 to (batch, 3, height, width) in [0, 1]."""
    return (torch.from_numpy(pictures).float() / 255).permute(0, 3, 1, 2).to(DEVICE, memory_format=torch.channels_last)


@torch.no_grad()
def through_autoencoder(autoencoder: comfy.taesd.taesd.TAESD, pictures: np.ndarray) -> np.ndarray:
    """Returns pictures as the autoencoder leaves them, (num, height, width, 3) uint8, like what is given."""
    painted = (
        autoencoder.taesd_decoder(autoencoder.taesd_encoder(as_tensor(pictures[i : i + 50])))
        for i in range(0, len(pictures), 50)
    )
    return np.concatenate(
        [part.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for part in painted]
    )


def train_autoencoder(pictures: Gallery, folder: Path) -> comfy.taesd.taesd.TAESD:
    autoencoder = initial_autoencoder()

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        chosen = rng.integers(0, len(pictures), BATCH)
        corners = rng.integers(0, (SIZE_PX - CROP_PX) // 8 + 1, (BATCH, 2)) * 8
        target = as_tensor(crops(pictures, chosen, corners, CROP_PX))
        return reconstruction_loss(autoencoder, target, has_edges=step >= EDGES_FROM * RECIPE.num_steps)

    def loss_at_faces(step: int, rng: np.random.Generator) -> Tensor:
        chosen = rng.integers(0, len(pictures), FACES_BATCH)
        corners = []
        for number in chosen:
            faces = pictures.scenes[number].faces(Extent(SIZE_PX, SIZE_PX)).faces
            x, y = np.array(faces[rng.integers(len(faces))].box.center) + rng.uniform(-20, 20, 2)
            corners.append(np.clip(np.array([y, x]) - FACES_CROP_PX / 2, 0, SIZE_PX - FACES_CROP_PX).astype(int))
        return reconstruction_loss(autoencoder, as_tensor(crops(pictures, chosen, corners, FACES_CROP_PX)))

    train(autoencoder, RECIPE, loss_of, folder / "autoencoder.pt")
    train(autoencoder, FACES_RECIPE, loss_at_faces, folder / "autoencoder_faces.pt")
    return train_finer(autoencoder, pictures, folder)


def train_finer(autoencoder: comfy.taesd.taesd.TAESD, pictures: Gallery, folder: Path) -> comfy.taesd.taesd.TAESD:
    """Trains the autoencoder further, so that faces of 26 to 80 pixels stay recognisable."""
    close_ups = face_close_ups(folder / "close_ups", NUM_CLOSE_UPS)
    for scale in (autoencoder.vae_scale, autoencoder.vae_shift):
        scale.requires_grad_(False)

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:  # noqa: ARG001
        faces = rng.integers(0, len(close_ups.pictures), CLOSE_UPS_BATCH)
        anywhere = rng.integers(0, len(pictures), ANYWHERE_BATCH)
        corners = rng.integers(0, SIZE_PX - CLOSE_UP_PX + 1, (ANYWHERE_BATCH, 2))
        shown = [close_ups.pictures[faces], crops(pictures, anywhere, corners, CLOSE_UP_PX)]
        parts = np.concatenate(
            [close_ups.parts[faces], np.zeros((ANYWHERE_BATCH, CLOSE_UP_PX, CLOSE_UP_PX, 2), np.uint8)]
        )
        heads, features = torch.from_numpy(parts).to(DEVICE).float().div(255)[:, None].unbind(-1)
        weight = 1 + HEAD_WEIGHT * heads + FEATURES_WEIGHT * features
        noise = LATENT_NOISE * torch.rand(len(weight), 1, 1, 1, device=DEVICE)
        return reconstruction_loss(
            autoencoder, as_tensor(np.concatenate(shown)), weight=weight / weight.mean(), noise=noise
        )

    train(autoencoder, FINER_RECIPE, loss_of, folder / "autoencoder_finer.pt")
    return normalise_latents(autoencoder, pictures)


def crops(pictures: Gallery, chosen: np.ndarray, corners: Sequence[np.ndarray], size_px: int) -> np.ndarray:
    """Returns square parts of pictures, (num, size_px, size_px, 3) uint8. Corners are (top, left)."""
    pairs = zip(chosen, corners, strict=True)
    return np.stack([pictures.pictures[i, y : y + size_px, x : x + size_px] for i, (y, x) in pairs])


def reconstruction_loss(
    autoencoder: comfy.taesd.taesd.TAESD,
    target: Tensor,
    *,
    has_edges: bool = True,
    weight: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Returns the difference of the pixels, and of the edges between them, which keeps lines sharp.

    Args:
        autoencoder: the network that is trained.
        target: pictures, (batch, 3, height, width) in [0, 1].
        has_edges: whether the differences between neighbouring pixels count.
        weight: weight of each pixel, (batch, 1, height, width), 1 on average. None: all pixels count alike.
        noise: deviation of the noise that is added to each picture's latent, (batch, 1, 1, 1), as a multiple of the
            latents' own deviation. None: no noise.
    """
    with autocast():
        latent = autoencoder.taesd_encoder(target).float()
        noisy = latent if noise is None else latent + noise * latent.detach().std() * torch.randn_like(latent)
        painted = autoencoder.taesd_decoder(noisy)
    away = painted.float() - target
    weight = torch.ones_like(away[:, :1]) if weight is None else weight
    loss = (weight * (away.abs() + away.square())).mean() + 1e-3 * relu(latent.abs() - 2).square().mean()
    if not has_edges:
        return loss
    across, down = away.diff(dim=3).abs() * weight[..., 1:], away.diff(dim=2).abs() * weight[..., 1:, :]
    return loss + 0.5 * (across.mean() + down.mean())


@torch.no_grad()
def normalise_latents(autoencoder: comfy.taesd.taesd.TAESD, pictures: Gallery) -> comfy.taesd.taesd.TAESD:
    """Sets TAESD's scale and shift so that the UNet sees latents of mean 0 and deviation 1."""
    raw = torch.cat([autoencoder.taesd_encoder(as_tensor(pictures.pictures[i : i + 50])) for i in range(0, 1000, 50)])
    autoencoder.vae_scale.fill_(SD15_SCALE * raw.std())
    autoencoder.vae_shift.fill_(-raw.mean() / autoencoder.vae_scale)
    return autoencoder
