"""Bleed: how much the faces of a picture resemble the other people in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..faces.face import PictureFaces
from ..faces.likeness import Portrait, cosine_similarities
from .facesim import MemberScore


def bleed(
    members: Sequence[MemberScore], portraits: Sequence[Portrait], *, picture: PictureFaces, recogniser: str
) -> float:
    """Returns the mean cosine similarity of each face with the people whose face it is not.

    Strangers do not have a similarity of exactly 0. Compare the figure with that of true pictures of the same people.

    Args:
        members: the scores of the people in this picture, from `score_cast`.
        portraits: the people, in the same order.
        picture: the faces that were scored.
        recogniser: hash that keys the faces' embeddings.
    Returns:
        From -1 to 1; NaN if there is one person only, or nobody's face was found.
    """
    others: list[float] = []
    people = np.stack([portrait.embedding for portrait in portraits])
    for index, member in enumerate(members):
        if member.face is not None:
            face = picture.faces[member.face].embeddings[recogniser]
            others += np.delete(cosine_similarities(people, face[None])[:, 0], index).tolist()
    return sum(others) / len(others) if others else math.nan
