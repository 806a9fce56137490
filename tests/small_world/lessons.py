"""The training set of the world's branches: IDZoom's six modalities, written for the pack's own trainers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from ...fpga_core.training.dataset_writing import ShardWriter, write_header
from ...fpga_core.training.samples import TrainingSample
from . import anatomy
from .gallery import SIZE_PX, gallery
from .painter import SUPERSAMPLING, pixels
from .recogniser import as_input, portrait
from .scenes import Actor

HEAD = 1.35
"""The region of an identity is larger than the face by this: it holds the hair."""


def head_mask(actor: Actor, size_px: int = SIZE_PX) -> np.ndarray:
    """Face and hair, (size_px, size_px) uint8, 255 inside."""
    canvas = np.zeros((size_px * SUPERSAMPLING,) * 2, np.uint8)
    outline = HEAD * anatomy.face_outline(actor.person, np.linspace(0, 2 * np.pi, 64))
    cv2.fillPoly(canvas, [pixels(canvas, actor.head.place(outline))], 255)
    return cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)


class WorldRecogniser:
    """The exported recogniser, run as insightface runs it.

    Args:
        file: the ONNX file; its SHA-256 keys the embeddings.
    """

    def __init__(self, file: Path) -> None:
        self.hash = hashlib.sha256(file.read_bytes()).hexdigest()
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def embed(self, aligned: np.ndarray) -> np.ndarray:
        """Embeddings of aligned faces, (num, 112, 112, 3) uint8 -> (num, 512) float32, not normalised."""
        return self._session.run(None, {"picture": as_input(aligned).cpu().numpy()})[0]


def lessons(pictures_folder: Path, num_scenes: int, recogniser: WorldRecogniser) -> Iterator[TrainingSample]:
    """Every scene of one person, with the face from *another* picture of that person: pose cannot leak through it."""
    pictures = gallery(pictures_folder, num_scenes)
    for number, scene in enumerate(pictures.scenes):
        if len(scene.actors) > 1:
            continue
        (actor,) = scene.actors
        other = portrait(actor.person, np.random.default_rng((9, number)))
        yield TrainingSample(
            key=f"{number:06}",
            caption=scene.caption,
            image=pictures.pictures[number],
            skeleton=pictures.skeletons[number],
            landmarks=pictures.landmarks[number],
            mask=head_mask(actor),
            face=other,
            embedding=recogniser.embed(other[None])[0],
        )


def write_lessons(folder: Path, pictures_folder: Path, num_scenes: int, recogniser_file: Path) -> None:
    """Writes the shards, once."""
    recogniser = WorldRecogniser(recogniser_file)
    if (folder / "dataset.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder) as writer:
        for sample in lessons(pictures_folder, num_scenes, recogniser):
            writer.write(sample)
    write_header(folder, recogniser.hash, "the small world of tests/small_world")
