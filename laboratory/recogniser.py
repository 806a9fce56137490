"""The world's face recogniser, trained with ArcFace on rendered people and exported as ONNX for insightface.

Identity comes from pictures alone: the network is told who is who, but never sees a person's parameters.
"""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from ..fpga_core.faces.alignment import ARCFACE_SIZE_PX, align_face
from ..fpga_core.shapes import Extent
from .loop import DEVICE, Recipe, autocast, train
from .painter import paint
from .people import Person, random_person
from .scenes import Shot, random_scene

RECIPE = Recipe(num_steps=2500, learning_rate=2e-3, weight_decay=1e-3, ema=0.99)
NUM_PEOPLE, PICTURES_EACH = 2000, 8
BATCH = 64
MARGIN, SCALE = 0.3, 24.0
EMBEDDING_DIM = 512


class Recogniser(nn.Sequential):
    """Maps aligned faces, (batch, 3, 112, 112) in [-1, 1], to embeddings, (batch, 512)."""

    def __init__(self) -> None:
        def conv(num_in: int, num_out: int, stride: int = 2) -> list[nn.Module]:
            return [nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False), nn.BatchNorm2d(num_out), nn.PReLU(num_out)]

        super().__init__(
            *conv(3, 16),
            *conv(16, 32),
            *conv(32, 64),
            *conv(64, 96),
            *conv(96, 96, 1),
            nn.Conv2d(96, 192, 7, groups=96),
            nn.Flatten(),
            nn.Linear(192, EMBEDDING_DIM, bias=False),
            nn.BatchNorm1d(EMBEDDING_DIM),
        )


def person_number(number: int) -> Person:
    """Returns the person with a number, which is always the same. Those from NUM_PEOPLE on are held out."""
    return random_person(np.random.default_rng((7, number)))


def portrait(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Returns an aligned face, (112, 112, 3) uint8, from a close-up that is sharp, small or blurred."""
    size_px = int(2 ** rng.uniform(5, 7.2))
    scene = random_scene(rng, Shot.CLOSE, (person,))
    (face,) = scene.faces(Extent(size_px, size_px)).faces
    points = face.landmarks + rng.normal(0, 0.012 * face.size_px, 2)  # as exact as a detector
    moved = type(face)(box=face.box, landmarks=points)
    aligned = align_face(paint(scene, size_px), moved)
    if rng.random() < 0.3:
        aligned = cv2.GaussianBlur(aligned, (0, 0), rng.uniform(0.5, 2.5))
    return aligned


def portraits_of(number: int) -> np.ndarray:
    rng = np.random.default_rng((8, number))
    return np.stack([portrait(person_number(number), rng) for _ in range(PICTURES_EACH)])


def portraits(file: Path, numbers: range) -> np.ndarray:
    """Returns portraits, (people, PICTURES_EACH, 112, 112, 3) uint8, rendered on the first call."""
    if not file.exists():
        with multiprocessing.Pool() as pool:
            np.save(file, np.stack(list(pool.imap(portraits_of, numbers, chunksize=20))))
    return np.load(file, mmap_mode="r")


def as_input(faces: np.ndarray) -> Tensor:
    """Converts (batch, 112, 112, 3) uint8 to (batch, 3, 112, 112) in [-1, 1], as insightface does for recognisers."""
    return ((torch.from_numpy(faces).float() - 127.5) / 127.5).permute(0, 3, 1, 2).to(DEVICE)


def arcface_loss(embedding: Tensor, centres: Tensor, people: Tensor) -> Tensor:
    """Returns the loss with an additive angular margin (Deng et al. 2019, Eq. 3)."""
    cosine = linear(normalize(embedding), normalize(centres)).clamp(-1 + 1e-6, 1 - 1e-6)
    own = torch.nn.functional.one_hot(people, len(centres)).bool()
    return cross_entropy(SCALE * torch.where(own, torch.cos(torch.acos(cosine) + MARGIN), cosine), people)


def train_recogniser(folder: Path) -> Recogniser:
    faces = portraits(folder / "portraits.npy", range(NUM_PEOPLE))
    module = nn.ModuleDict({"recogniser": Recogniser()})
    module.register_parameter("centres", nn.Parameter(torch.randn(NUM_PEOPLE, EMBEDDING_DIM) * 0.05))
    module.to(DEVICE)

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        people, shots = rng.integers(0, NUM_PEOPLE, BATCH), rng.integers(0, PICTURES_EACH, BATCH)
        batch = np.stack([faces[person, shot] for person, shot in zip(people, shots, strict=True)])
        light = rng.uniform(0.85, 1.15, (BATCH, 1, 1, 1))
        batch = np.clip(batch * light + rng.normal(0, 3, batch.shape), 0, 255).astype(np.uint8)
        with autocast():
            embedding = module["recogniser"](as_input(batch))
        return arcface_loss(embedding.float(), module.centres, torch.from_numpy(people).to(DEVICE))

    return train(module, RECIPE, loss_of, folder / "recogniser.pt")["recogniser"]


@torch.no_grad()
def verification(recogniser: Recogniser, folder: Path) -> dict[str, float]:
    """Measures how well held-out people are told apart.

    `same` and `different` are mean cosines. `auc` is how often two pictures of one person are more alike than two of
    different people.
    """
    numbers = range(NUM_PEOPLE, NUM_PEOPLE + 200)
    faces = portraits(folder / "held_out_portraits.npy", numbers)
    embeddings = torch.stack([normalize(recogniser(as_input(np.array(person)))) for person in faces])
    same = torch.einsum("psd,ptd->pst", embeddings, embeddings)
    same = same[:, torch.ones_like(same[0]).triu(1) > 0].flatten()
    others = torch.einsum("psd,qsd->spq", embeddings, embeddings)
    different = others[:, torch.ones_like(others[0]).triu(1) > 0].flatten()
    ranks = torch.searchsorted(different.sort().values, same).float() / len(different)
    return {"same": same.mean().item(), "different": different.mean().item(), "auc": ranks.mean().item()}


def export_onnx(network: nn.Module, size_px: int, outputs: list[str], file: Path, *, is_batched: bool) -> None:
    """Writes a network as insightface loads it, for pictures of a fixed size, one at a time or in batches."""
    axes = {name: {0: "batch"} for name in ("picture", *outputs)} if is_batched else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.cpu().eval(),
            (torch.zeros(1, 3, size_px, size_px),),
            str(file),
            input_names=["picture"],
            output_names=outputs,
            dynamic_axes=axes,
            dynamo=False,
        )


def export_recogniser(recogniser: Recogniser, file: Path) -> None:
    export_onnx(recogniser, ARCFACE_SIZE_PX, ["embedding"], file, is_batched=True)
