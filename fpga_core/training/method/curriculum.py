"""The curriculum: what a network is shown in training, and what it has to learn."""

from __future__ import annotations

from dataclasses import dataclass

from .clone_face import CloneFaceTuning
from .fusion import Drops, MultiModeFusion


@dataclass(frozen=True)
class Curriculum:
    """What a network is shown in training, and what it has to learn.

    Attributes:
        fusion: the stages of training.
        clone_face: Clone Face Tuning, in the iterations for which `fusion` asks for it.
        drops: how often text and identity are dropped.
    """

    fusion: MultiModeFusion = MultiModeFusion()
    clone_face: CloneFaceTuning = CloneFaceTuning()
    drops: Drops = Drops()
