"""The Fréchet distance between two sets of features. FID is the best-known example."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidInputError


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Computes `|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))` of two Gaussians fitted to features.

    Args:
        first, second: (num, dim) each, at least two rows. With few pictures, the figure is too large: compare only
            figures from equally many.
    Returns:
        At least 0.
    Raises:
        InvalidInputError: the sets are too small, or of different widths.
    Source: Heusel et al. 2017, Eq. 6. The trace of the root is the sum of the singular values of `A_1 A_2^T`, with the
        centred features A / sqrt(num - 1): S = A^T A, and there is no need to take the root of a singular matrix.
    """
    if min(len(first), len(second)) < 2 or first.ndim != 2 or first.shape[1:] != second.shape[1:]:
        raise InvalidInputError(
            f"features of the shapes {first.shape} and {second.shape} cannot be compared; each set needs at least two "
            "features, and both need the same width"
        )
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    centred = [
        (features - mean) / (len(features) - 1) ** 0.5 for features, mean in zip((first, second), means, strict=True)
    ]
    spread = sum(float((part**2).sum()) for part in centred)
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return max(float(((means[0] - means[1]) ** 2).sum()) + spread - 2 * float(cross), 0.0)
