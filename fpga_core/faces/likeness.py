"""Measures how closely faces resemble each other, and finds which face belongs to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..geometry import Box
from ..packages import importing

MIN_LIKENESS = 0.2
"""With ArcFace-like recognisers, faces with a lower cosine similarity usually show two different people."""

MIN_IOU = 0.5
"""A face is in the place meant for it if their intersection over union is greater (FPGA section 4.1)."""

IOU_ROUNDING = 1e-9
"""Boxes are converted to fractions of the picture and back. An IoU of exactly 0.5 must not come out above 0.5."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A person as a recogniser knows them, and the place meant for their face.

    Attributes:
        name: the person's name.
        embedding: (dim,), not zero.
        face_box: fractions of the picture; None if only the person is known.
        number: the person's number for the user, from 1; 0 takes that of the place in the list.
    """

    name: str
    embedding: np.ndarray = field(repr=False)
    face_box: Box | None = None
    number: int = 0


def cosine_similarities(people: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of every person with every face.

    Args:
        people: (num_people, dim) embeddings of one recogniser, of any length.
        faces: (num_faces, dim) embeddings of the same recogniser.
    Returns:
        (num_people, num_faces) float64 in [-1, 1]; 0 for an embedding that is zero.
    """
    similarities: NDArray[np.float64] = np.matmul(_unit(people), np.transpose(_unit(faces)))
    return similarities.clip(-1.0, 1.0)


def best_assignment(scores: np.ndarray) -> dict[int, int]:
    """Returns the pairing of rows with columns, each used at most once, whose scores have the largest sum.

    Args:
        scores: (num_rows, num_columns), finite.
    Returns:
        Row -> column, for as many rows as have a partner.
    """
    with importing("scipy"):
        from scipy.optimize import linear_sum_assignment
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def is_in_place(iou: float) -> bool:
    """Returns whether a face whose box overlaps the place meant for it by `iou` counts as being there."""
    return iou > MIN_IOU + IOU_ROUNDING


def _unit(embeddings: np.ndarray) -> NDArray[np.float64]:
    embeddings = embeddings.astype(np.float64)
    length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(length > 0, length, 1.0)
