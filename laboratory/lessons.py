"""The training set of the world's branches: IDZoom's six modalities, in the format of the pack's own trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from ..fpga_core.faces.pack_download import file_sha256
from ..fpga_core.training.data.samples import TrainingSample
from ..fpga_core.training.data.writing import ShardWriter, write_header
from .gallery import SIZE_PX, Gallery
from .painter import paint_mask
from .recogniser import as_input, portrait
from .scenes import Scene

SOURCE = "the small world of laboratory"
HEAD = 1.35
"""The region of an identity is larger than the face by this factor, so that it holds the hair."""


class WorldRecogniser:
    """The exported recogniser, run as insightface runs it.

    Args:
        file: the ONNX file; its SHA-256 keys the embeddings.
    """

    def __init__(self, file: Path) -> None:
        self.hash = file_sha256(file)
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def embed(self, aligned: np.ndarray) -> np.ndarray:
        """Returns embeddings, (num, 512) float32, not normalised, of aligned faces, (num, 112, 112, 3) uint8."""
        return self._session.run(None, {"picture": as_input(aligned).cpu().numpy()})[0]


def lessons(
    pictures: Gallery, recogniser: WorldRecogniser, first: int = 0, *, keys: str = ""
) -> Iterator[TrainingSample]:
    """Yields every scene, with the face from *another* picture of the person, so that no pose leaks through it.

    A sample of a group describes one of its people, drawn at random.

    Args:
        pictures: scenes and their pictures.
        recogniser: embeds the faces.
        first: number of the first scene. Random choices depend only on the scenes' numbers.
        keys: prefix of the samples' keys.
    """
    for index, scene in enumerate(pictures.scenes):
        number = first + index
        mask, other = parts_of(scene, number)
        yield TrainingSample(
            key=f"{keys}{number:06}",
            caption=scene.caption,
            image=pictures.pictures[index],
            skeleton=pictures.skeletons[index],
            landmarks=pictures.landmarks[index],
            mask=mask,
            face=other,
            embedding=recogniser.embed(other[None])[0],
        )


def parts_of(scene: Scene, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the region of one person of a scene, drawn at random by its number, and another picture of them.

    Returns:
        (SIZE_PX, SIZE_PX) uint8, and (112, 112, 3) uint8, aligned.
    """
    actor = scene.actors[np.random.default_rng((14, number)).integers(len(scene.actors))]
    return paint_mask(actor, SIZE_PX, HEAD), portrait(actor.person, np.random.default_rng((9, number)))


def write_set(
    folder: Path, recogniser_file: Path, samples: Callable[[WorldRecogniser], Iterator[TrainingSample]]
) -> None:
    """Writes a training set, unless it exists.

    Args:
        folder: the folder of the training set.
        recogniser_file: the ONNX file.
        samples: returns the samples to write, given the recogniser.
    """
    if (folder / "dataset.json").exists():
        return
    recogniser = WorldRecogniser(recogniser_file)
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder) as writer:
        for sample in samples(recogniser):
            writer.write(sample)
    write_header(folder, recogniser=recogniser.hash, source=SOURCE)
