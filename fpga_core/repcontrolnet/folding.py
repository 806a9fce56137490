"""The fold of a branch into the weights that it was copied from (Eq. 6).

Training folds its branch with `fold_weight` in every step. On ComfyUI, the host's weight patches compute the same
numbers (`patching/repcontrolnet/fold.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import ShapeMismatchError


def foldable_parameters(unet: nn.Module) -> dict[str, torch.Size]:
    """Returns the parameters that a RepControlNet copies: weight and bias of every convolution and linear layer.

    Args:
        unet: the diffusion model. Its layers can be of any class, including quantized ones. Layers whose weight has two
            or more dimensions count; norms have vectors, and embedding tables are left out.
    Returns:
        `<module path>.weight` and `.bias` -> shape, in the order of the modules.
    Source: FPGA section 3.3; time embedding and resampling convolutions are included, norms are not.
    """
    shapes: dict[str, torch.Size] = {}
    for path, module in cast("Iterator[tuple[str, nn.Module]]", unet.named_modules()):
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        weight, bias = own.get("weight"), own.get("bias")
        if weight is None or weight.ndim < 2 or isinstance(module, nn.Embedding):
            continue
        shapes[f"{path}.weight"] = weight.shape
        if bias is not None:
            shapes[f"{path}.bias"] = bias.shape
    return shapes


def fold_weight(base: Tensor, branch: Tensor, *, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """Folds one parameter of a branch into that of the base.

    Args:
        base: weight or bias of the base layer, any float dtype.
        branch: its trained copy, same shape.
        alpha: weight of the base.
        beta: weight of the copy.
    Returns:
        `alpha base + beta branch`, computed in float32, in the dtype and on the device of `base`; differentiable.
    Raises:
        ShapeMismatchError: the two shapes differ.
    Source: FPGA Eq. 6.
    """
    if base.shape != branch.shape:
        raise ShapeMismatchError(
            f"the base parameter is {tuple(base.shape)}, but its copy is {tuple(branch.shape)}; the branch belongs to "
            "another model"
        )
    weighted_base = _times(alpha, base.float())
    return (weighted_base + _times(beta, branch.to(base.device, torch.float32))).to(base.dtype)


def _times(factor: float, parameter: Tensor) -> Tensor:
    return parameter if factor == 1 else factor * parameter
