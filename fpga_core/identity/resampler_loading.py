"""Builds resamplers from the tensors of a file. The tensors determine the sizes, and every tensor is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ..checkpoints import check_keys, check_shapes
from ..errors import CheckpointKeyError, CheckpointShapeError
from .identity import EMBEDDING_DIM
from .resampler import HEAD_DIM, FacePlusProjection, FaceProjection, FeatureResampler, Resampler

PERCEIVER = "perceiver_resampler."

AnyResampler = TypeVar("AnyResampler", bound=Resampler)


def load_face_projection(weights: Mapping[str, Tensor], name: str, prefix: str) -> FaceProjection:
    """Returns the resampler of a FaceID file, or that of a FaceID-Plus file if there is a `perceiver_resampler`.

    Args:
        weights: parameter name -> tensor.
        name: the file's name in messages.
        prefix: prefix of the parameter names in the file.
    Returns:
        The network, which holds the tensors of `weights` as they are.
    Raises:
        CheckpointKeyError, CheckpointShapeError: tensors are missing, do not belong, or have a wrong shape.
    """
    (token_dim,) = file_shape(weights, "norm.weight", num_axes=1, name=name)
    num_tokens = file_shape(weights, "proj.2.weight", num_axes=2, name=name)[0] // token_dim
    if num_tokens == 0:
        raise CheckpointShapeError(
            f"'{prefix}proj.2.weight' in '{name}' has too few rows for one token of {token_dim} numbers; the file is "
            "damaged: download it again"
        )
    inner_dim = file_shape(weights, "proj.0.weight", num_axes=2, name=name)[0]
    if not has_perceiver(weights):
        with torch.device("meta"):
            plain = FaceProjection(EMBEDDING_DIM, token_dim=token_dim, num_tokens=num_tokens, inner_dim=inner_dim)
        return _loaded(plain, weights, name=name, prefix=prefix)
    feature_dim = file_shape(weights, f"{PERCEIVER}proj_in.weight", num_axes=2, name=name)[1]
    num_heads = _num_heads(weights, f"{PERCEIVER}layers.0.0.to_q.weight", name)
    with torch.device("meta"):
        resampler = FacePlusProjection(
            EMBEDDING_DIM,
            feature_dim=feature_dim,
            token_dim=token_dim,
            num_heads=num_heads,
            num_tokens=num_tokens,
            inner_dim=inner_dim,
        )
    return _loaded(resampler, weights, name=name, prefix=prefix)


def load_feature_resampler(weights: Mapping[str, Tensor], name: str, prefix: str) -> FeatureResampler:
    """Returns the resampler of a plus-face or InstantID file; all else is as in `load_face_projection`."""
    _, num_tokens, dim = file_shape(weights, "latents", num_axes=3, name=name)
    feature_dim = file_shape(weights, "proj_in.weight", num_axes=2, name=name)[1]
    token_dim = file_shape(weights, "proj_out.weight", num_axes=2, name=name)[0]
    num_heads = _num_heads(weights, "layers.0.0.to_q.weight", name)
    with torch.device("meta"):
        resampler = FeatureResampler(
            feature_dim, dim=dim, token_dim=token_dim, num_heads=num_heads, num_tokens=num_tokens
        )
    return _loaded(resampler, weights, name=name, prefix=prefix)


def has_perceiver(weights: Mapping[str, Tensor]) -> bool:
    """Returns whether a face projection also gathers structure from CLIP features."""
    return any(key.startswith(PERCEIVER) for key in weights)


def file_shape(weights: Mapping[str, Tensor], key: str, *, num_axes: int, name: str) -> torch.Size:
    """Returns the shape of a tensor that determines the sizes of a network.

    Raises:
        CheckpointKeyError: the tensor is missing.
        CheckpointShapeError: it has another number of axes, or is empty.
    """
    if key not in weights:
        raise CheckpointKeyError(f"'{key}' is missing from '{name}'; the file is incomplete: download it again")
    shape = weights[key].shape
    if len(shape) != num_axes or 0 in shape:
        raise CheckpointShapeError(
            f"'{key}' of '{name}' is {tuple(shape)}; a tensor with {num_axes} axes belongs there, none of them empty: "
            "the file is damaged: download it again"
        )
    return shape


def _num_heads(weights: Mapping[str, Tensor], key: str, name: str) -> int:
    num_rows = file_shape(weights, key, num_axes=2, name=name)[0]
    if num_rows % HEAD_DIM:
        raise CheckpointShapeError(
            f"'{key}' in '{name}' has {num_rows} rows, which is not a multiple of the head size {HEAD_DIM}; the file "
            "is damaged: download it again"
        )
    return num_rows // HEAD_DIM


def _loaded(resampler: AnyResampler, weights: Mapping[str, Tensor], *, name: str, prefix: str) -> AnyResampler:
    """Puts the tensors of a file into a network on the meta device."""
    expected = {prefix + key: tensor.shape for key, tensor in resampler.state_dict().items()}
    found = {prefix + key: tensor for key, tensor in weights.items()}
    check_keys(name, found, expected)
    check_shapes(name, found, expected)
    resampler.load_state_dict(dict(weights), assign=True)
    return resampler.requires_grad_(False)
