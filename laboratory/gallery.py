"""Many pictures of the small world at once: rendered in parallel, kept as arrays in a cache."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from ..fpga_core.geometry import Box
from ..fpga_core.shapes import Extent
from .painter import paint
from .scenes import Scene, Shot, random_scene

SIZE_PX = 128
CHUNK = 250
HELD_OUT_SEED = 1_000_000
"""Scenes from this number on are never trained on."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Scenes and their pictures, (num, SIZE_PX, SIZE_PX, 3) uint8, and the condition images drawn from them."""

    scenes: tuple[Scene, ...]
    pictures: np.ndarray
    skeletons: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)


def scene_number(number: int) -> Scene:
    """The scene of a number: always the same one."""
    return random_scene(np.random.default_rng((20261124, number)))


CROP_MARGINS = 0.3, 0.6
"""Of the crops, around a face on every side, as a fraction of its longer side."""


def face_crop(scene: Scene, margin: float) -> Scene:
    """The square part of a scene of one person that Restore Faces would crop: the face and a margin around it."""
    box = scene.faces(Extent(1, 1)).faces[0].box
    side = min(1.0, max(box.width, box.height) * (1 + 2 * margin))
    left, top = (min(max(middle - side / 2, 0.0), 1 - side) for middle in box.center)
    return scene.zoomed(Box(left, top, left + side, top + side))


def crop_number(number: int) -> Scene:
    """The face crop of a number: of somebody seen from head to waist or to the feet.

    Half of the captions name what the crop shows, a close-up, and half what the whole picture showed.
    """
    rng = np.random.default_rng((20261126, number))
    scene = face_crop(random_scene(rng, (Shot.HALF, Shot.FULL)[rng.integers(2)]), rng.uniform(*CROP_MARGINS))
    return replace(scene, shot=Shot.CLOSE) if rng.random() < 0.5 else scene


def conditions_of(scene: Scene, size_px: int = SIZE_PX) -> tuple[np.ndarray, np.ndarray]:
    """Skeleton and landmark image of a scene, each (size_px, size_px, 3) uint8, drawn as the pack's nodes draw."""
    faces = [scene.faces(Extent(size_px, size_px))]
    images = [draw_conditions(faces, parts, FaceStyle.OPENPOSE)[0] for parts in (DrawnParts.BODY, DrawnParts.FACE)]
    return tuple((image.numpy() * 255).round().astype(np.uint8) for image in images)


def gallery(folder: Path, num_scenes: int, first: int = 0, scene_of: Callable[[int], Scene] = scene_number) -> Gallery:
    """Scenes `first` to `first + num_scenes - 1`; chunks that are in the folder already are not rendered again.

    Args:
        folder: gets the chunks; one for each kind of scene.
        num_scenes, first: which.
        scene_of: the scene of a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(first, first + num_scenes, CHUNK)
    files = [folder / f"{start}_{min(CHUNK, first + num_scenes - start)}.npz" for start in starts]
    if missing := [file for file in files if not file.exists()]:
        with multiprocessing.Pool() as pool:
            for _ in pool.imap_unordered(partial(render_chunk, scene_of), missing):
                pass
    chunks = [np.load(file) for file in files]
    stacked = (np.concatenate([chunk[name] for chunk in chunks]) for name in ("pictures", "skeletons", "landmarks"))
    return Gallery(tuple(scene_of(first + i) for i in range(num_scenes)), *stacked)


def render_chunk(scene_of: Callable[[int], Scene], file: Path) -> None:
    start, num_scenes = map(int, file.stem.split("_"))
    scenes = [scene_of(start + i) for i in range(num_scenes)]
    skeletons, landmarks = zip(*map(conditions_of, scenes), strict=True)
    part = file.with_suffix(".part.npz")
    np.savez(
        part,
        pictures=np.stack([paint(scene, SIZE_PX) for scene in scenes]),
        skeletons=np.stack(skeletons),
        landmarks=np.stack(landmarks),
    )
    part.rename(file)
