"""What an analyser sees in a picture: faces with their landmarks and embeddings, and bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from ..geometry import Box
from ..shapes import Extent


@dataclass(frozen=True, eq=False)
class Face:
    """One face of one picture.

    Attributes:
        box: pixels of the picture.
        score: the detector's confidence, 0-1.
        landmarks: (num_points, 2) pixels, x then y; 5 points (eyes, nose, mouth corners; left to right as seen), 68
            (iBUG), 106 (insightface) or 468/478 (MediaPipe face mesh); the number of points names the layout. A point
            that was not seen is NaN. None if only a box is known.
        embeddings: recogniser hash -> (512,) embedding as the recogniser returned it, not normalised.
        keypoints: (5, 2) pixels, the detector's own eyes, nose and mouth corners, if it gives them beside a denser
            layout: what recognisers align by.
    """

    box: Box
    score: float = 1.0
    landmarks: np.ndarray | None = field(default=None, repr=False)
    embeddings: Mapping[str, np.ndarray] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    keypoints: np.ndarray | None = field(default=None, repr=False)

    @property
    def size_px(self) -> float:
        """The longer side of the box, which size limits refer to."""
        return max(self.box.width, self.box.height)


@dataclass(frozen=True, eq=False)
class Body:
    """One body skeleton: (18, 3) OpenPose (COCO-18) keypoints, x and y in pixels, then confidence 0-1 (0 = absent)."""

    keypoints: np.ndarray


@dataclass(frozen=True)
class PictureFaces:
    """The faces (and bodies, if known) of one picture.

    An `FPGA_FACES` socket carries a tuple of these, one per picture of the batch.
    """

    extent: Extent
    faces: tuple[Face, ...] = ()
    bodies: tuple[Body, ...] = ()


@runtime_checkable
class FaceAnalyzer(Protocol):
    """Finds faces in pictures. insightface packs implement this protocol, and so can any other detector."""

    @property
    def description(self) -> str:
        """Model and execution provider, as shown to the user, e.g. `buffalo_l on CPUExecutionProvider`."""
        ...

    @property
    def recogniser(self) -> str | None:
        """The hash under which this analyser's embeddings are stored; None if it has no recogniser.

        Embeddings of different recognisers are not comparable.
        """
        ...

    def find_faces(self, pictures: Sequence[np.ndarray]) -> list[tuple[Face, ...]]:
        """Returns the faces of each picture, in the detector's order.

        Args:
            pictures: (height, width, 3) uint8, RGB.
        """
        ...
