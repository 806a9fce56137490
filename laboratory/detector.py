"""The world's face detector (SCRFD) and dense landmark network, in forms that insightface loads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, relu, smooth_l1_loss

from ..fpga_core.faces.landmarks import five_points
from ..fpga_core.shapes import Extent
from .gallery import SIZE_PX, Gallery
from .loop import DEVICE, Recipe, autocast, train
from .recogniser import export_onnx

DETECTOR_RECIPE = Recipe(num_steps=4000, learning_rate=2e-3, weight_decay=1e-3, ema=0.99, seed=1)
LANDMARK_RECIPE = Recipe(num_steps=5000, learning_rate=2e-3, weight_decay=1e-3, ema=0.99, seed=2)
BROKEN_SHARE = 0.5
"""How many of the examples show a face as the autoencoder leaves it. Faces that need a repair look like that."""
BATCH = 32
EXTENT = Extent(SIZE_PX, SIZE_PX)
DETECTOR_PX, STRIDES = 192, (8, 16, 32)
LANDMARK_PX, LANDMARK_INNER_PX = 192, 64
"""insightface feeds landmark networks 192 pixels. This one works at a third of that resolution."""
MIN_DETECTED_PX = 10
"""Faces that are smaller than this in the detector's input do not count in training."""


def conv(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)
    )


class Detector(nn.Module):
    """Maps a picture, (1, 3, 192, 192), to SCRFD's nine outputs. The finest grid finds faces of every size.

    The outputs are scores, distances to the box's edges and positions of five points, in strides, for each cell of the
    grids of 8, 16 and 32 pixels and two anchors per cell. Only the first anchors of the finest grid report faces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 12, 2), conv(12, 24, 2), conv(24, 48, 2), conv(48, 48))
        self.down = nn.Sequential(conv(48, 64, 2), conv(64, 64))
        self.deep = nn.Sequential(conv(64, 64, 2), conv(64, 64), conv(64, 64))
        self.lateral = nn.Conv2d(48, 64, 1)
        self.head = nn.Sequential(conv(64, 64), nn.Conv2d(64, 15, 1))
        nn.init.constant_(self.head[-1].bias[:1], -4.0)

    def grid(self, picture: Tensor) -> Tensor:
        """Returns the logit, four distances and ten coordinates of each cell, (batch, 15, 24, 24)."""
        fine = self.stem(picture)
        middle = self.down(fine)
        middle = middle + interpolate(self.deep(middle), scale_factor=2)
        return self.head(self.lateral(fine) + interpolate(middle, scale_factor=2))

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        cells = self.grid(picture).permute(0, 2, 3, 1).reshape(-1, 1, 15)
        first = torch.cat([cells[..., :1].sigmoid(), relu(cells[..., 1:5]), cells[..., 5:]], dim=-1)
        silent = torch.zeros_like(first)
        finest = torch.cat([first, silent], dim=1).reshape(-1, 15)
        grids = [finest, *(finest[: 2 * (DETECTOR_PX // stride) ** 2] * 0 for stride in STRIDES[1:])]
        parts = ((0, 1), (1, 5), (5, 15))
        return tuple(grid[:, start:end] for start, end in parts for grid in grids)


class LandmarkNet(nn.Sequential):
    """Maps a face in its box, (batch, 3, 192, 192), to 68 points, (batch, 136), with x and y from -1 to 1."""

    def __init__(self) -> None:
        super().__init__(
            nn.AvgPool2d(LANDMARK_PX // LANDMARK_INNER_PX),
            conv(3, 16, 2),
            conv(16, 32, 2),
            conv(32, 48, 2),
            conv(48, 64, 2),
            nn.Flatten(),
            nn.Linear(64 * 16, 96),
            nn.ReLU(),
            nn.Linear(96, 136),
        )


def as_input(pictures: np.ndarray) -> Tensor:
    """Converts uint8 pictures as insightface does for detectors and landmark networks."""
    return ((torch.from_numpy(pictures).float() - 127.5) / 128).permute(0, 3, 1, 2).to(DEVICE)


def zoomed(picture: np.ndarray, rng: np.random.Generator, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a random part of a picture, or the picture on a black ground, and the (2, 3) matrix that maps to it."""
    scale = size_px / picture.shape[0] * rng.choice([1.0, rng.uniform(0.7, 2.2)])
    middle = picture.shape[0] * (0.5 + rng.uniform(-0.2, 0.2, 2))
    matrix = np.column_stack([np.eye(2) * scale, size_px / 2 - middle * scale])
    moved = cv2.warpAffine(picture, matrix, (size_px, size_px), borderValue=(0, 0, 0))
    if rng.random() < 0.3:
        moved = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.5, 2))
    return moved, matrix


def targets(faces: list[np.ndarray], boxes: list[np.ndarray]) -> np.ndarray:
    """Returns the outputs wanted of the finest grid, (16, 24, 24).

    The last channel is 1 in cells near a face's middle, and -1 in cells that do not count.
    """
    side = DETECTOR_PX // STRIDES[0]
    wanted = np.zeros((16, side, side), np.float32)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    for points, box in zip(faces, boxes, strict=True):
        left, top, right, bottom = box / STRIDES[0]
        middle_x, middle_y, size = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)
        reach = np.hypot(x - middle_x, y - middle_y)
        near = reach <= max(0.18 * size, reach.min() + 1e-3)
        around = reach <= max(0.35 * size, 1.5)
        is_asked = bottom - top >= MIN_DETECTED_PX / STRIDES[0] and 0 <= middle_x < side and 0 <= middle_y < side
        wanted[15][around] = -1
        if not is_asked:
            continue
        wanted[15][near], wanted[0][near] = 1, 1
        wanted[1:5, near] = np.stack([x - left, y - top, right - x, bottom - y])[:, near]
        for number, (px, py) in enumerate(points / STRIDES[0]):
            wanted[5 + 2 * number, near], wanted[6 + 2 * number, near] = (px - x)[near], (py - y)[near]
    return wanted


def train_detector(pictures: Gallery, broken: np.ndarray, file: Path) -> Detector:
    """Trains the detector, half on pictures and half on what the autoencoder makes of them, shaped alike."""
    detector = Detector().to(DEVICE)
    found = [scene.faces(EXTENT).faces for scene in pictures.scenes]

    def example(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shown = broken if rng.random() < BROKEN_SHARE else pictures.pictures
        picture, matrix = zoomed(shown[number], rng, DETECTOR_PX)
        points = [five_points(face.landmarks) @ matrix[:, :2].T + matrix[:, 2] for face in found[number]]
        corners = [np.array([[face.box.x0, face.box.y0], [face.box.x1, face.box.y1]]) for face in found[number]]
        boxes = [(corner @ matrix[:, :2].T + matrix[:, 2]).reshape(-1) for corner in corners]
        return picture, targets(points, boxes)

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        examples = [example(number, rng) for number in rng.integers(0, len(pictures), BATCH)]
        batch = np.stack([picture for picture, _ in examples])
        wanted = torch.from_numpy(np.stack([target for _, target in examples])).to(DEVICE)
        with autocast():
            grid = detector.grid(as_input(batch))
        grid, state = grid.float(), wanted[:, 15]
        is_counted, is_face = state >= 0, state == 1
        scores = binary_cross_entropy_with_logits(grid[:, 0], wanted[:, 0], reduction="none")
        focal = (torch.sigmoid(grid[:, 0]) - wanted[:, 0]).abs() ** 2
        score = (scores * focal * is_counted).sum() / is_face.sum()
        sizes = (wanted[:, 1:5].sum(1, keepdim=True) / 2).clamp(min=1)
        places = smooth_l1_loss(grid[:, 1:] / sizes, wanted[:, 1:15] / sizes, reduction="none", beta=0.05).sum(1)
        return score + (places * is_face).sum() / is_face.sum()

    return train(detector, DETECTOR_RECIPE, loss_of, file)


def train_landmarks(pictures: Gallery, broken: np.ndarray, file: Path) -> LandmarkNet:
    """Trains the landmark network on the same pictures as the detector."""
    network = LandmarkNet().to(DEVICE)
    found = [(number, face) for number, scene in enumerate(pictures.scenes) for face in scene.faces(EXTENT).faces]

    def example(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        number, face = found[index]
        side = face.size_px * 1.5 * rng.uniform(0.9, 1.15)
        middle = np.array(face.box.center) + rng.normal(0, 0.05 * face.size_px, 2)
        scale = LANDMARK_PX / side
        matrix = np.column_stack([np.eye(2) * scale, LANDMARK_PX / 2 - middle * scale])
        shown = broken if rng.random() < BROKEN_SHARE else pictures.pictures
        crop = cv2.warpAffine(shown[number], matrix, (LANDMARK_PX, LANDMARK_PX))
        if rng.random() < 0.3:
            crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(1, 6))
        points = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        return crop, (points / (LANDMARK_PX / 2) - 1).astype(np.float32)

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        crops, points = zip(*(example(index, rng) for index in rng.integers(0, len(found), BATCH)), strict=True)
        with autocast():
            predicted = network(as_input(np.stack(crops)))
        wanted = torch.from_numpy(np.stack(points)).to(DEVICE)
        return smooth_l1_loss(predicted.float().unflatten(1, (68, 2)), wanted, beta=0.02)

    return train(network, LANDMARK_RECIPE, loss_of, file)


def export_pack(detector: Detector, landmarks: LandmarkNet, folder: Path) -> None:
    """Writes the detector and the landmark network into the folder that also gets the recogniser."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES]
    export_onnx(detector, DETECTOR_PX, outputs, folder / "det_world.onnx", is_batched=False)
    export_onnx(landmarks, LANDMARK_PX, ["landmarks"], folder / "lmk_world.onnx", is_batched=False)
