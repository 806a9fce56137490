"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...fpga_core.shapes import Extent
from .captioning import CAPTIONER
from .captioning import GIVES as WRITTEN
from .looking import GIVES as LOOKED
from .seeing import FACE_ANALYSIS, POSE_MODEL
from .seeing import GIVES as SEEN
from .sharding import FACE_PARSER
from .sharding import GIVES as SHARDED
from .tasks import Task


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a picture must be to get into the set. See the options of `fpga-portrait dataset build`."""

    min_side: int
    min_clarity: float
    max_watermark: float
    min_caption_score: float | None
    hash_distance: int
    min_similarity: float
    min_face: float
    min_face_score: float
    minor_faces: float
    groups: bool
    empty_captions: bool


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """A build.

    Attributes:
        sources: folders, tables and shards.
        output: the folder of the set.
        size: size of its pictures.
        shard_size: pictures in a shard.
        thresholds: what a picture must be.
        models: option -> file or folder, of those that are given.
        prompt, max_tokens: of the captioner.
        recogniser: hash of the recogniser of embeddings that are given.
        decisions: files of the review.
        source, licence: of pictures that name none themselves.
    """

    sources: list[Path]
    output: Path
    size: Extent
    shard_size: int
    thresholds: Thresholds
    models: dict[str, Path] = field(default_factory=dict)
    prompt: str = ""
    max_tokens: int = 40
    recogniser: str | None = None
    decisions: list[Path] = field(default_factory=list)
    source: str = ""
    licence: str = ""

    @property
    def work(self) -> Path:
        """The folder of what a build needs to go on after a stop. It can be deleted when the build is done."""
        return self.output / "work"

    def looking(self) -> Task:
        return Task(
            name="look",
            module="looking",
            takes=("place", "given"),
            gives=LOOKED,
            settings={},
            models={},
            batch_size=32,
        )

    def seeing(self) -> Task:
        return Task(
            name="see",
            module="seeing",
            takes=("place", "given"),
            gives=SEEN,
            settings=self._size(),
            models=self._chosen(FACE_ANALYSIS, POSE_MODEL),
            batch_size=8,
        )

    def captioning(self) -> Task:
        return Task(
            name="caption",
            module="captioning",
            takes=("place", "window"),
            gives=WRITTEN,
            settings={**self._size(), "prompt": self.prompt, "max_tokens": self.max_tokens},
            models=self._chosen(CAPTIONER),
            batch_size=8,
        )

    def sharding(self) -> Task:
        return Task(
            name="shard",
            module="sharding",
            takes=("plan", "shard"),
            gives=SHARDED,
            settings=self._size(),
            models=self._chosen(FACE_PARSER),
            batch_size=1,
        )

    def _size(self) -> dict[str, list[int]]:
        return {"size": [self.size.width, self.size.height]}

    def _chosen(self, *names: str) -> dict[str, Path]:
        return {name: self.models[name] for name in names if name in self.models}
