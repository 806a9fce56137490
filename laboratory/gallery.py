"""Many pictures of the small world, rendered in parallel and cached as arrays."""

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
"""Training never sees scenes with this number or a higher one."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Scenes, their pictures, and the condition images drawn from them, (num, SIZE_PX, SIZE_PX, 3) uint8 each."""

    scenes: tuple[Scene, ...]
    pictures: np.ndarray
    skeletons: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)


def scene_number(number: int) -> Scene:
    """Returns the scene with a number, which is always the same."""
    return random_scene(np.random.default_rng((20261124, number)))


CROP_MARGINS = 0.3, 0.6
"""The smallest and the largest margin around the face in a crop, as a fraction of the face's longer side."""


def face_crop(scene: Scene, margin: float) -> Scene:
    """Returns the square that Restore Faces would crop from a scene of one person: the face and a margin around it."""
    box = scene.faces(Extent(1, 1)).faces[0].box
    side = min(1.0, max(box.width, box.height) * (1 + 2 * margin))
    left, top = (min(max(middle - side / 2, 0.0), 1 - side) for middle in box.center)
    return scene.zoomed(Box(left, top, left + side, top + side))


def crop_number(number: int) -> Scene:
    """Returns the face crop with a number, from a half-body or full-body scene.

    Half of the captions call the crop a close-up. The others keep the caption of the whole picture.
    """
    rng = np.random.default_rng((20261126, number))
    scene = face_crop(random_scene(rng, (Shot.HALF, Shot.FULL)[rng.integers(2)]), rng.uniform(*CROP_MARGINS))
    return replace(scene, shot=Shot.CLOSE) if rng.random() < 0.5 else scene


def conditions_of(scene: Scene, size_px: int = SIZE_PX) -> tuple[np.ndarray, np.ndarray]:
    """Draws the skeleton and landmark images of a scene, (size_px, size_px, 3) uint8 each, as the pack's nodes do."""
    faces = [scene.faces(Extent(size_px, size_px))]
    images = [draw_conditions(faces, parts, FaceStyle.OPENPOSE)[0] for parts in (DrawnParts.BODY, DrawnParts.FACE)]
    return tuple((image.numpy() * 255).round().astype(np.uint8) for image in images)


def gallery(folder: Path, num_scenes: int, first: int = 0, scene_of: Callable[[int], Scene] = scene_number) -> Gallery:
    """Returns the scenes `first` to `first + num_scenes - 1`, and renders those that are not in the folder yet.

    Args:
        folder: the folder that keeps the rendered chunks. Each kind of scene needs its own.
        num_scenes, first: how many scenes, and the number of the first one.
        scene_of: returns the scene with a number.
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
