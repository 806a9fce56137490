"""Pictures with faces that a test can place, an analyser that sees them, and a small real autoencoder."""

import comfy.sd
import comfy.taesd.taehv
import comfy.taesd.taesd
import numpy as np
import torch
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.shapes import Extent
from tiny_identities import person

WIDTH, HEIGHT = 160, 120


def tiny_vae(seed: int = 0, latent_channels: int = 4) -> comfy.sd.VAE:
    """An autoencoder in TAESD's layout with seeded random weights: eight pixels to a latent pixel, as in SD."""
    generator = torch.Generator().manual_seed(seed)
    weights = comfy.taesd.taesd.TAESD(latent_channels=latent_channels).state_dict()
    for name, weight in weights.items():
        if weight.ndim:  # the scale and shift of the latent stay as they are
            gain = 1.25 if "encoder" in name else 0.9  # latents of deviation 3, pictures that are not saturated
            scale = gain / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1
            weights[name] = scale * torch.randn(weight.shape, generator=generator)
    return comfy.sd.VAE(sd=weights, metadata={"tae_latent_channels": latent_channels})


def tiny_video_vae(seed: int = 0) -> comfy.sd.VAE:
    """An autoencoder in TAEHV's layout, as Qwen-Image's is one for video: a batch of pictures would be one video."""
    vae = comfy.sd.VAE(sd=comfy.taesd.taehv.TAEHV(latent_channels=16).state_dict())
    generator = torch.Generator().manual_seed(seed)
    for weight in vae.first_stage_model.state_dict().values():
        weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    return vae


def pictures(num: int = 1, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, HEIGHT, WIDTH, channels, generator=torch.Generator().manual_seed(seed))


def landmarks(box: Box, seed: int = 0) -> np.ndarray:
    """Sixty-eight points inside a box, no two faces alike."""
    within = np.random.default_rng(seed).uniform(0.1, 0.9, (68, 2))
    return within * (box.width, box.height) + (box.x0, box.y0)


def face(x: float, y: float, width: float, height: float, seed: int | None = None) -> Face:
    """A face at a place; with a seed it has landmarks and looks like `person(seed)`."""
    box = Box(x, y, x + width, y + height)
    if seed is None:
        return Face(box)
    embedding = person(seed).embeddings[BUFFALO_L][0].numpy()
    return Face(box, landmarks=landmarks(box, seed), embeddings={BUFFALO_L: embedding})


def found(*faces_per_picture: tuple[Face, ...]) -> tuple[PictureFaces, ...]:
    return tuple(PictureFaces(Extent(WIDTH, HEIGHT), faces) for faces in faces_per_picture)


def placed_cast(**places: Face) -> Cast:
    """`placed_cast(p1=face)`: person 1 where that face is."""
    members = []
    for name, place in places.items():
        box = place.box.normalised(Extent(WIDTH, HEIGHT))
        members.append(CastMember(person(int(name[1:])), Region.from_box(box), box))
    return Cast(tuple(members), Extent(WIDTH, HEIGHT))


class ScriptedAnalysis:
    """A face analysis that sees one face in the middle of every picture, as like person 1 as the script says."""

    description = "scripted on nothing"
    recogniser = BUFFALO_L

    def __init__(self, likeness: list[float]):
        self.likeness = list(likeness)

    def find_faces(self, pictures_):
        seen = []
        for picture in pictures_:
            side = picture.shape[0]
            box = Box(side * 0.25, side * 0.25, side * 0.75, side * 0.75)
            direction = person(1).embeddings[BUFFALO_L][0].numpy()
            other = np.roll(direction, 1)
            other = other - direction * (other @ direction) / (direction @ direction)
            cosine = self.likeness.pop(0)
            embedding = cosine * direction / np.linalg.norm(direction)
            embedding = embedding + (1 - cosine**2) ** 0.5 * other / np.linalg.norm(other)
            seen.append((Face(box, embeddings={BUFFALO_L: embedding}),))
        return seen
