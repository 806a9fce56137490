"""The fold of a branch into the weights that it was copied from (Eq. 6), and whether they fit each other.

Training folds its branch with `fold_weight` in every step. On ComfyUI, the host's weight patches compute the same
numbers (`patching/repcontrolnet/fold.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ..checkpoints import check_keys, check_shapes
from ..errors import BaseModelError, CheckpointKeyError, CheckpointShapeError, ShapeMismatchError
from .branch import RepControlNet, recognise_base
from .hint_encoder import hint_encoder_widths

FIRST_CONVOLUTION = "input_blocks.0.0.weight"


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


def fit_branch(branch: RepControlNet, layers: Mapping[str, torch.Size]) -> RepControlNet:
    """The branch as a model takes it, its first convolution widened if the model reads more than a latent.

    Inpainting and InstructPix2Pix models of the same base read a mask or a second picture in channels after the
    latent's four. A branch that was copied from the plain model has no weights for those channels: they are zero.

    Args:
        branch: as read from a file.
        layers: the model's parameters, as `foldable_parameters` gives them.
    Returns:
        The branch, or one with the same header whose weights have the shapes of `layers`.
    Raises:
        BaseModelError, CheckpointKeyError, CheckpointShapeError: as `check_branch_fits`.
    """
    copy, expected = branch.weights.get(FIRST_CONVOLUTION), layers.get(FIRST_CONVOLUTION)
    if copy is not None and expected is not None and copy.ndim == len(expected) == 4:
        num_more = expected[1] - copy.shape[1]
        if num_more > 0:
            widened = nn.functional.pad(copy, (0, 0, 0, 0, 0, num_more))
            branch = replace(branch, weights={**branch.weights, FIRST_CONVOLUTION: widened})
    check_branch_fits(branch, layers)
    return branch


def check_branch_fits(branch: RepControlNet, layers: Mapping[str, torch.Size]) -> None:
    """Raises unless every layer of the model has its copy in the branch, and the other way round.

    Args:
        branch: as read from a file.
        layers: the model's parameters, as `foldable_parameters` gives them.
    Raises:
        BaseModelError: the branch is for another architecture.
        CheckpointKeyError: copies are missing, do not belong, or the file holds the hint encoder only.
        CheckpointShapeError: a copy does not have the shape of its layer.
    """
    check_hint_encoder_fits(branch, layers)
    if branch.is_hint_encoder_only:
        raise CheckpointKeyError(
            f"'{branch.name}' holds only the hint encoder, because its layers are already folded into a saved model; "
            "use it with that model and mode 'adapter_only'"
        )
    check_keys(branch.name, branch.weights, layers)
    check_shapes(branch.name, branch.weights, layers)


def check_hint_encoder_fits(branch: RepControlNet, layers: Mapping[str, torch.Size]) -> None:
    """Raises unless the branch's hint encoder fits the model, which is all that a model with the fold still needs.

    Args:
        branch: as read from a file.
        layers: the model's parameters, as `foldable_parameters` gives them.
    Raises:
        BaseModelError: the branch is for another architecture.
        CheckpointShapeError: the encoder's width does not match the model's first convolution.
    """
    model_base, branch_base = recognise_base(layers), branch.header.base
    if branch_base != model_base or FIRST_CONVOLUTION not in layers:
        raise BaseModelError(
            f"'{branch.name}' is a RepControlNet for {branch_base}, but the connected model is {model_base}; connect a "
            f"{branch_base} model, or choose a RepControlNet for {model_base}"
        )
    width, expected = hint_encoder_widths(branch.hint_encoder, branch.name)[-1], layers[FIRST_CONVOLUTION][0]
    if width != expected:
        raise CheckpointShapeError(
            f"the hint encoder of '{branch.name}' gives {width} channels, but the model's first convolution gives "
            f"{expected}; the file was made for another model"
        )


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
