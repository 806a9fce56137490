"""How alike faces are, and which face is whose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Box
from ..packages import importing

MIN_LIKENESS = 0.2
"""Faces whose cosine similarity is lower usually show two different people, by ArcFace-like recognisers."""

MIN_IOU = 0.5
"""A face is in the place meant for it if their intersection over union is greater (FPGA section 4.1)."""

IOU_ROUNDING = 1e-9
"""Boxes pass through fractions of the picture and back: an IoU of exactly 0.5 must not come out above it."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """One person as a recogniser knows them, and where their face is meant to be.

    Attributes:
        name: the person's name.
        embedding: (dim,), of any length but zero.
        face_box: fractions of the picture; None if only the person is known.
    """

    name: str
    embedding: np.ndarray
    face_box: Box | None = None


def cosine_similarities(people: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Cosine similarity of every person with every face.

    Args:
        people: (num_people, dim) embeddings of one recogniser, of any length.
        faces: (num_faces, dim) embeddings of the same recogniser.
    Returns:
        (num_people, num_faces) float64 in [-1, 1]; 0 for an embedding that is zero.
    """
    similarities: NDArray[np.float64] = np.matmul(_unit(people), np.transpose(_unit(faces)))
    return similarities.clip(-1.0, 1.0)


def best_assignment(scores: np.ndarray) -> dict[int, int]:
    """The pairing of rows with columns, each used at most once, whose scores have the largest sum.

    Args:
        scores: (num_rows, num_columns), finite.
    Returns:
        Row -> column, for as many rows as there are partners.
    """
    with importing("scipy"):
        from scipy.optimize import linear_sum_assignment
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def is_in_place(iou: float) -> bool:
    """Whether a face whose box overlaps the place meant for it by `iou` counts as being there."""
    return iou > MIN_IOU + IOU_ROUNDING


def _unit(embeddings: np.ndarray) -> NDArray[np.float64]:
    embeddings = embeddings.astype(np.float64)
    length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(length > 0, length, 1.0)
