"""The self-attention layers of a model: their shapes, and whether restoration can work with them."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...block_slots import BlockSlot
from ...errors import PatchConflictError, UnsupportedModeError
from ...restoration.cache_plan import AttentionLayer
from ...shapes import Extent
from ..repcontrolnet.fold import unet_of

SUPPORTED = "checkpoints of Stable Diffusion 1.x, 2.x and SDXL, and their fine-tunes"

TOKEN_MERGERS = {"HyperTile": "HyperTile", "TomePatchModel": "Tome Patch Model (token merging)"}
"""Classes of nodes whose attention patches rearrange tokens, and the names that users know them by."""


def check_restoring_model(model: ModelPatcher) -> None:
    """Refuses models and patches whose self-attention cannot be recorded and replayed.

    Raises:
        UnsupportedModeError: the model is no image UNet with eps- or v-prediction.
        PatchConflictError: a node before it merges tokens or skips steps.
    """
    unet, sampling = unet_of(model), model.get_model_object("model_sampling")
    if any(isinstance(module, SpatialVideoTransformer) for module in unet.modules()):
        raise UnsupportedModeError(
            f"the connected model ({type(model.model).__name__}) generates video; restore faces with {SUPPORTED}"
        )
    if not isinstance(sampling, comfy.model_sampling.EPS):
        raise UnsupportedModeError(
            f"the connected model predicts in a way that cannot be inverted here ({type(sampling).__name__}); restore "
            f"faces with {SUPPORTED}"
        )
    transformer_options = model.model_options.get("transformer_options", {})
    if "easycache" in transformer_options:
        name = getattr(transformer_options["easycache"], "name", "EasyCache")
        raise PatchConflictError(
            f"the connected model skips steps ({name}), so a restoration cannot follow its inversion step by step: "
            f"connect the model from before {name}, or bypass that node"
        )
    for node in _token_mergers(transformer_options):
        raise PatchConflictError(
            f"the connected model merges or rearranges tokens ({node}), so features of one step do not fit another: "
            f"connect the model from before {node}, or bypass that node"
        )


def _token_mergers(transformer_options: dict[str, Any]) -> list[str]:
    patches = transformer_options.get("patches", {})
    found = (*patches.get("attn1_patch", ()), *patches.get("attn1_output_patch", ()))
    owners = (getattr(patch, "__qualname__", "").partition(".")[0] for patch in found)
    return [TOKEN_MERGERS[owner] for owner in owners if owner in TOKEN_MERGERS]


def self_attention_layers(model: ModelPatcher, latent: Extent) -> tuple[AttentionLayer, ...]:
    """Every self-attention layer of a UNet with the shape of its output, in the order in which they run.

    Args:
        model: passes `check_restoring_model`.
        latent: size of the latent.
    Returns:
        The layers; shapes follow from the architecture, no model call is made.
    """
    unet = unet_of(model)
    layers: list[AttentionLayer] = []
    skips: list[Extent] = []
    extent = latent
    for number, block in enumerate(unet.input_blocks):
        layers += _layers_of("input", number, block, extent)
        if any(isinstance(module, Downsample) for module in block):
            extent = extent.downscaled(2)
        skips.append(extent)
    layers += _layers_of("middle", 0, unet.middle_block, extent)
    for number, block in enumerate(unet.output_blocks):
        layers += _layers_of("output", number, block, skips.pop())
    return tuple(layers)


def _layers_of(kind: str, number: int, block: nn.Module, extent: Extent) -> list[AttentionLayer]:
    transformers = [module for module in block if isinstance(module, SpatialTransformer)]
    blocks = [layer for transformer in transformers for layer in enumerate(transformer.transformer_blocks)]
    return [
        AttentionLayer(BlockSlot(kind, number, index), extent.num_cells, layer.attn1.to_q.in_features)
        for index, layer in blocks
        if not layer.disable_self_attn
    ]
