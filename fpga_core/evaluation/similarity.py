"""CLIP-I, CLIP-T and DINO: how closely pictures resemble references or match their prompts, by embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeMismatchError
from ..faces.likeness import cosine_similarities


def reference_similarities(pictures: np.ndarray, references: np.ndarray) -> NDArray[np.float64]:
    """Computes CLIP-I or DINO: the mean cosine similarity of each picture with all references.

    Args:
        pictures: (num_pictures, dim) embeddings: CLIP's projected image embeddings for CLIP-I, DINO's normalised class
            token for DINO. They need no unit length.
        references: (num_references, dim) embeddings of the same encoder.
    Returns:
        (num_pictures,) in [-1, 1]. Some publications multiply by 100.
    Raises:
        ShapeMismatchError: there is no reference, or the widths differ.
    Source: Ruiz et al. 2023 (DreamBooth), section 4.1.
    """
    _check_width(pictures, references)
    if not len(references):
        raise ShapeMismatchError("there is no reference to compare the pictures with; name at least one")
    return cosine_similarities(pictures, references).mean(axis=1)


def prompt_similarities(pictures: np.ndarray, prompts: np.ndarray) -> NDArray[np.float64]:
    """Computes CLIP-T: the cosine similarity of each picture with its own prompt.

    Args:
        pictures: (num, dim) projected image embeddings of a CLIP.
        prompts: (num, dim) projected text embeddings of the same CLIP, one for each picture.
    Returns:
        (num,) in [-1, 1]. CLIPScore of torchmetrics is 100 times that, and at least 0.
    Raises:
        ShapeMismatchError: the numbers or the widths differ.
    Source: Ruiz et al. 2023 (DreamBooth), section 4.1.
    """
    _check_width(pictures, prompts)
    if len(pictures) != len(prompts):
        raise ShapeMismatchError(f"{len(pictures)} pictures have {len(prompts)} prompts; give each picture its own")
    rows = zip(pictures[:, None], prompts[:, None], strict=True)
    return np.array([cosine_similarities(picture, prompt)[0, 0] for picture, prompt in rows])


def _check_width(first: np.ndarray, second: np.ndarray) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ShapeMismatchError(
            f"embeddings of the shapes {first.shape} and {second.shape} cannot be compared; take both from one "
            "encoder, and prompts from the text side of the same CLIP"
        )
