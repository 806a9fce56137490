"""Checks whether a branch fits a model, before anything is patched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from ..checkpoints import check_keys, check_shapes
from ..errors import BaseModelError, CheckpointKeyError, CheckpointShapeError
from .bases import recognise_base
from .branch import RepControlNet
from .hint_encoder import hint_encoder_widths

FIRST_CONVOLUTION = "input_blocks.0.0.weight"


def fit_branch(branch: RepControlNet, layers: Mapping[str, torch.Size]) -> RepControlNet:
    """The branch as a model takes it, its first convolution widened if the model reads more than a latent.

    Inpainting and InstructPix2Pix models of the same base read a mask or a second picture in channels after the
    latent's four. A branch that was copied from the plain model has no weights for those channels: they are zero.

    Args:
        branch: as read from a file.
        layers: the model's parameters, as `folding.foldable_parameters` gives them.
    Returns:
        The branch, or one with the same header whose weights have the shapes of `layers`.
    Raises:
        BaseModelError, CheckpointKeyError, CheckpointShapeError: as `check_branch_fits`.
    """
    copy, expected = branch.weights.get(FIRST_CONVOLUTION), layers.get(FIRST_CONVOLUTION)
    if copy is not None and expected is not None and copy.ndim == len(expected) == 4:
        num_more = expected[1] - copy.shape[1]
        if num_more > 0:
            widened = torch.nn.functional.pad(copy, (0, 0, 0, 0, 0, num_more))
            branch = replace(branch, weights={**branch.weights, FIRST_CONVOLUTION: widened})
    check_branch_fits(branch, layers)
    return branch


def check_branch_fits(branch: RepControlNet, layers: Mapping[str, torch.Size]) -> None:
    """Raises unless every layer of the model has its copy in the branch, and the other way round.

    Args:
        branch: as read from a file.
        layers: the model's parameters, as `folding.foldable_parameters` gives them.
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
        layers: the model's parameters, as `folding.foldable_parameters` gives them.
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
