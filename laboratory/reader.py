"""A network that reads from a picture what its caption says, except expressions.

It measures caption accuracy, and its features give the world's FID.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .gallery import HELD_OUT_SEED, SIZE_PX, Gallery, gallery
from .loop import DEVICE, Recipe, autocast, train
from .recogniser import export_onnx
from .scenes import COLOR_NAMES, PATTERNS, Scene, Shot

RECIPE = Recipe(num_steps=1000, learning_rate=2e-3, weight_decay=1e-3, ema=0.99)
BATCH = 64
MAX_SHIFT = 8
FEATURE_DIM = 128
SHOTS = tuple(shot.value for shot in Shot if shot.num_people == 1)
QUESTIONS = {
    "shot": SHOTS,
    "shirt": COLOR_NAMES,
    "background": COLOR_NAMES,
    "pattern": PATTERNS,
}
"""The questions that are answered, with the possible answers."""


def answers(scene: Scene) -> tuple[str, ...]:
    """Returns the answers that the caption of a scene of one person gives, in the order of QUESTIONS."""
    (actor,) = scene.actors
    return scene.shot.value, actor.shirt, scene.background, scene.pattern


class Reader(nn.Module):
    """Maps pictures, (batch, 3, 128, 128) in [-1, 1], to features, (batch, 128), and scores, (batch, all answers)."""

    def __init__(self) -> None:
        super().__init__()

        def conv(num_in: int, num_out: int) -> list[nn.Module]:
            return [nn.Conv2d(num_in, num_out, 3, 2, 1, bias=False), nn.BatchNorm2d(num_out), nn.PReLU(num_out)]

        self.features = nn.Sequential(
            *conv(3, 16),
            *conv(16, 32),
            *conv(32, 48),
            *conv(48, 64),
            nn.Conv2d(64, 16, 1),
            nn.Flatten(),
            nn.Linear(16 * (SIZE_PX // 16) ** 2, FEATURE_DIM, bias=False),
            nn.BatchNorm1d(FEATURE_DIM),
            nn.ReLU(),
        )
        self.scores = nn.Linear(FEATURE_DIM, sum(map(len, QUESTIONS.values())))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(pictures)
        return features, self.scores(features)


def as_input(pictures: np.ndarray) -> Tensor:
    """Converts (batch, 128, 128, 3) uint8 to (batch, 3, 128, 128) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def per_question(scores: Tensor) -> list[Tensor]:
    return list(scores.split([len(choices) for choices in QUESTIONS.values()], dim=1))


def train_reader(pictures: Gallery, file: Path) -> Reader:
    singles = [number for number, scene in enumerate(pictures.scenes) if len(scene.actors) == 1]
    truth = torch.tensor([indices(pictures.scenes[number]) for number in singles])
    reader = Reader().to(DEVICE)

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        chosen = rng.integers(0, len(singles), BATCH)
        batch = moved(pictures.pictures[np.array(singles)[chosen]], rng).astype(np.float32)
        batch = batch * rng.uniform(0.9, 1.1, (BATCH, 1, 1, 1)) + rng.normal(0, 6, batch.shape)
        with autocast():
            _, scores = reader(as_input(batch.clip(0, 255).astype(np.uint8)).to(DEVICE))
        asked = zip(per_question(scores.float()), truth[torch.from_numpy(chosen)].to(DEVICE).T, strict=True)
        return sum((cross_entropy(part, right) for part, right in asked), torch.zeros((), device=DEVICE))

    return train(reader, RECIPE, loss_of, file)


def moved(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts pictures by up to MAX_SHIFT pixels, and mirrors some: no caption mentions left or right."""
    padded = np.pad(pictures, ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT), (0, 0)), mode="edge")
    shifted = [
        picture[y : y + SIZE_PX, x : x + SIZE_PX][:, :: rng.choice((-1, 1))]
        for picture, (y, x) in zip(padded, rng.integers(0, 2 * MAX_SHIFT + 1, (len(pictures), 2)), strict=True)
    ]
    return np.stack(shifted)


def indices(scene: Scene) -> list[int]:
    return [choices.index(answer) for choices, answer in zip(QUESTIONS.values(), answers(scene), strict=True)]


def export_reader(reader: Reader, file: Path) -> None:
    export_onnx(reader, SIZE_PX, ["features", "scores"], file, is_batched=True)


class PictureReader:
    """The exported reader."""

    def __init__(self, file: Path) -> None:
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def read(self, pictures: np.ndarray) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """Returns features, (batch, 128), and each picture's answers in the order of QUESTIONS."""
        features, scores = self._session.run(None, {"picture": as_input(pictures).numpy()})
        best = [part.argmax(dim=1).tolist() for part in per_question(torch.from_numpy(scores))]
        told = [
            tuple(choices[index] for choices, index in zip(QUESTIONS.values(), row, strict=True))
            for row in zip(*best, strict=True)
        ]
        return features, told


def held_out_accuracy(file: Path, folder: Path, num_scenes: int = 1000) -> dict[str, float]:
    """Returns for each question how often the exported reader is right on painted pictures that it never saw."""
    pictures = gallery(folder, num_scenes, HELD_OUT_SEED)
    singles = [number for number, scene in enumerate(pictures.scenes) if len(scene.actors) == 1]
    _, told = PictureReader(file).read(pictures.pictures[singles])
    right = np.array([answers(pictures.scenes[number]) for number in singles]) == np.array(told)
    return dict(zip(QUESTIONS, right.mean(axis=0).round(4).tolist(), strict=True))
