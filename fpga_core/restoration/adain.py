"""Adaptive instance normalisation over a mask: the style transfer inside Mask Guided Face Fusion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-5
"""Added to every variance, as in Huang & Belongie (2017), so that a constant channel does not divide by zero."""

MIN_EFFECTIVE_CELLS = 2.0
"""A deviation needs two cells. With fewer, there is no style to take or to give."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The weighted mean and deviation of each channel of each item.

    Attributes:
        mean: (..., 1, channels) float32.
        deviation: (..., 1, channels) float32, at least the square root of `VARIANCE_FLOOR`.
        is_defined: (..., 1, 1) bool; False if the mask leaves fewer than two effective cells.
    """

    mean: Tensor
    deviation: Tensor
    is_defined: Tensor

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.mean, self.deviation, self.is_defined))


def masked_moments(features: Tensor, mask: Tensor) -> Moments:
    """Computes the mean and deviation of features under a soft mask.

    Args:
        features: (..., cells, channels), any float dtype.
        mask: weights in [0, 1], (..., cells, 1), broadcast over the leading dimensions.
    Returns:
        Moments in float32. The effective number of cells of a soft mask is `(sum m)^2 / sum m^2` (Kish): one for a
        single cell of any weight. Below two, the moments are finite but marked as undefined.
    Source: mu and sigma of AdaIN (Huang & Belongie 2017, Eq. 5-7), weighted by the mask.
    """
    features, mask = features.float(), mask.float()
    total = mask.sum(dim=-2, keepdim=True)
    weights = (mask / total.clamp(min=torch.finfo(torch.float32).tiny)).mT  # (..., 1, cells), sums to 1
    mean = weights @ features
    variance = weights @ (features - mean).square()
    effective_cells = total.square() / mask.square().sum(dim=-2, keepdim=True).clamp(
        min=torch.finfo(torch.float32).tiny
    )
    return Moments(mean, (variance + VARIANCE_FLOOR).sqrt(), effective_cells >= MIN_EFFECTIVE_CELLS)


def adain(features: Tensor, content: Moments, style: Moments) -> Tensor:
    """Replaces the moments of features by those of a style.

    Args:
        features: (..., cells, channels) float32.
        content: moments of `features` under the mask.
        style: moments to give them.
    Returns:
        `style.deviation * (features - content.mean) / content.deviation + style.mean`, the shape of `features`;
        unchanged if either side is undefined.
    Source: AdaIN (Huang & Belongie 2017, Eq. 8).
    """
    scale = style.deviation / content.deviation
    shift = style.mean - content.mean * scale
    return torch.where(content.is_defined & style.is_defined, features * scale + shift, features)
