"""The autoencoder of crops. Some are made for video, and take a batch of pictures for the frames of a single video."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy.sd import VAE
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PictureVAE:
    """A VAE to which a batch is a batch of pictures. It serves wherever the host expects a VAE of pictures."""

    vae: VAE

    def encode(self, pictures: Tensor) -> Tensor:
        """Encodes pictures, (batch, height, width, channels), to latents of the VAE's own form."""
        each = pictures.split(1) if self.vae.latent_dim == 3 else (pictures,)
        return torch.cat([self.vae.encode(picture) for picture in each])

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes latents to pictures, (batch, height, width, channels)."""
        return self.vae.decode(latents).flatten(0, -4)  # a VAE for video adds an axis of one frame after the batch

    def spacial_compression_encode(self) -> int:
        """Returns the side of a latent pixel, under the host's name."""
        return self.vae.spacial_compression_encode()
