"""The training set of the world's branches: IDZoom's six modalities, written for the pack's own trainers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from ..fpga_core.faces.pack_download import file_sha256
from ..fpga_core.training.data.samples import TrainingSample
from ..fpga_core.training.data.writing import ShardWriter, write_header
from .gallery import SIZE_PX, gallery
from .painter import paint_mask
from .recogniser import as_input, portrait

HEAD = 1.35
"""The region of an identity is larger than the face by this: it holds the hair."""


class WorldRecogniser:
    """The exported recogniser, run as insightface runs it.

    Args:
        file: the ONNX file; its SHA-256 keys the embeddings.
    """

    def __init__(self, file: Path) -> None:
        self.hash = file_sha256(file)
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def embed(self, aligned: np.ndarray) -> np.ndarray:
        """Embeddings of aligned faces, (num, 112, 112, 3) uint8 -> (num, 512) float32, not normalised."""
        return self._session.run(None, {"picture": as_input(aligned).cpu().numpy()})[0]


def lessons(
    pictures_folder: Path, num_scenes: int, recogniser: WorldRecogniser, first: int = 0, *, are_groups: bool = False
) -> Iterator[TrainingSample]:
    """Every scene of one person, with the face from *another* picture of that person: pose cannot leak through it.

    Args:
        are_groups: every scene of several people in their place; one of them, drawn at random, is told about.
    """
    pictures = gallery(pictures_folder, num_scenes, first)
    for index, scene in enumerate(pictures.scenes):
        number = first + index
        if (len(scene.actors) > 1) is not are_groups:
            continue
        actor = scene.actors[np.random.default_rng((14, number)).integers(len(scene.actors))]
        other = portrait(actor.person, np.random.default_rng((9, number)))
        yield TrainingSample(
            key=f"{number:06}",
            caption=scene.caption,
            image=pictures.pictures[index],
            skeleton=pictures.skeletons[index],
            landmarks=pictures.landmarks[index],
            mask=paint_mask(actor, SIZE_PX, HEAD),
            face=other,
            embedding=recogniser.embed(other[None])[0],
        )


def write_lessons(folder: Path, pictures_folder: Path, num_scenes: int, recogniser_file: Path, first: int = 0) -> None:
    """Writes the shards of the scenes from `first` on, once."""
    recogniser = WorldRecogniser(recogniser_file)
    if (folder / "dataset.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder) as writer:
        for sample in lessons(pictures_folder, num_scenes, recogniser, first):
            writer.write(sample)
    write_header(folder, recogniser=recogniser.hash, source="the small world of laboratory")


def write_all_lessons(
    folder: Path, singles: Path, pictures_folder: Path, num_scenes: int, recogniser_file: Path
) -> None:
    """The lessons of one person, and those of groups after them, once.

    Args:
        folder: gets the shards.
        singles: what `write_lessons` wrote.
    """
    recogniser = WorldRecogniser(recogniser_file)
    if (folder / "dataset.json").exists():
        return
    groups = folder / "groups"
    groups.mkdir(parents=True, exist_ok=True)
    with ShardWriter(groups) as writer:
        for sample in lessons(pictures_folder, num_scenes, recogniser, are_groups=True):
            writer.write(sample)
    for shard in singles.glob("*.tar"):
        shutil.copy(shard, folder / shard.name)
    for shard in groups.glob("*.tar"):
        shard.rename(folder / f"groups-{shard.name}")
    groups.rmdir()
    write_header(folder, recogniser=recogniser.hash, source="the small world of laboratory")
