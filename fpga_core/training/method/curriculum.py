"""All that decides what a network is shown in training, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from .clone_face import CloneFaceTuning
from .fusion import Drops, MultiModeFusion


@dataclass(frozen=True)
class Curriculum:
    """What is shown to a network in training, and what is asked of it.

    Attributes:
        fusion: the stages of training.
        clone_face: Clone Face Tuning, in those iterations in which `fusion` asks for it.
        drops: how often text and identity are left out.
    """

    fusion: MultiModeFusion = MultiModeFusion()
    clone_face: CloneFaceTuning = CloneFaceTuning()
    drops: Drops = Drops()
