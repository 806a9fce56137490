"""Copy-paste: whether a generated face repeats the reference photo, where another photo of the person was the aim."""

from __future__ import annotations

import math

import numpy as np

from ..faces.likeness import cosine_similarities

MIN_ANGLE = 1e-6
"""Radians. A reference and a target that are nearer than that are the same photo, and nothing can be told."""


def copy_paste(generated: np.ndarray, *, target: np.ndarray, reference: np.ndarray) -> float:
    """Computes `(angle(g, t) - angle(g, r)) / angle(t, r)` of face embeddings.

    The photo of the target shows the same person as the reference, with another pose, expression and light. The two
    differ by what identity leaves open. A face that is nearer to the reference than to the target has copied some of
    that.

    Args:
        generated: (dim,) embedding of the generated face.
        target: (dim,) embedding of another photo of the person, which the model has not seen.
        reference: (dim,) embedding of the photo that the model was given.
    Returns:
        From -1, the target itself, over 0, as near to both, to 1, the reference itself. NaN if target and reference are
        the same.
    Source: Xu et al. 2025, WithAnyone (arXiv 2510.14975), the copy-paste metric of MultiID-Bench. That benchmark's
        program gives 0 where this gives NaN.
    """
    faces = np.stack([generated, target, reference])
    angles = np.arccos(cosine_similarities(faces, faces))
    between = float(angles[1, 2])
    return float(angles[0, 1] - angles[0, 2]) / between if between > MIN_ANGLE else math.nan
