"""What face analysers deliver, checked once for everybody who uses it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..boundaries import guarded
from ..errors import DetectionError
from ..shapes import Extent
from .face import Face, FaceAnalyzer
from .landmarks import LAYOUTS

EMBEDDING_DIM = 512
MIN_SIDE_PX = 64
MAX_OUTSIDE = 8
"""A coordinate is at most this many sides of the picture away from it. A picture counts as `MIN_SIDE_PX` at least."""


def find_faces(analyser: FaceAnalyzer, pictures: Sequence[np.ndarray]) -> list[tuple[Face, ...]]:
    """Returns the faces that an analyser finds in each picture, if they can be faces.

    Args:
        analyser: any face analyser, also one of another node pack.
        pictures: (height, width, 3) uint8 RGB.
    Returns:
        The faces of each picture, in the analyser's order.
    Raises:
        DetectionError: the analyser fails, or delivers what cannot be a face; the message names the analyser.
    """
    advice = "use another face analysis pack, such as buffalo_l or antelopev2"
    with guarded(DetectionError, f"the face analysis '{analyser.description}' failed", advice=advice):
        found = [tuple(faces) for faces in analyser.find_faces(pictures)]
    if len(found) != len(pictures):
        raise DetectionError(
            f"the face analysis '{analyser.description}' returned {len(found)} lists of faces for {len(pictures)} "
            f"pictures; {advice}"
        )
    for number, (picture, faces) in enumerate(zip(pictures, found, strict=True), start=1):
        extent = Extent(picture.shape[1], picture.shape[0])
        if fault := next(filter(None, (fault_of(face, extent) for face in faces)), None):
            raise DetectionError(
                f"the face analysis '{analyser.description}' is not usable: in picture {number} ({extent}), it found a "
                f"face with {fault}; {advice}"
            )
    return found


def fault_of(face: Face, picture: Extent) -> str | None:
    """Returns what is wrong with a detected face; None if nothing is.

    Args:
        face: as a detector delivers it.
        picture: the size of its picture.
    """
    box = [face.box.x0, face.box.y0, face.box.x1, face.box.y1]
    most = MAX_OUTSIDE * max(picture.width, picture.height, MIN_SIDE_PX)
    if not (np.abs(box) <= most).all():
        return f"the box {', '.join(f'{edge:g}' for edge in box)}"
    if not np.isfinite(face.score):
        return f"the score {face.score}"
    for name, points, layouts in (("landmarks", face.landmarks, LAYOUTS), ("key points", face.keypoints, (5,))):
        if points is None:
            continue
        if points.ndim != 2 or points.shape[1] != 2 or len(points) not in layouts:
            return f"{name} of the shape {tuple(points.shape)}"
        if (np.abs(points) > most).any():  # NaN is a point that was not seen
            return f"{name} far outside the picture (as far as {np.nanmax(np.abs(points)):g} pixels)"
    for embedding in face.embeddings.values():
        if embedding.shape != (EMBEDDING_DIM,):
            return f"an embedding of the shape {tuple(embedding.shape)}, not ({EMBEDDING_DIM},)"
        if not np.isfinite(embedding).all():
            return "an embedding that holds NaN or infinity"
    return None
