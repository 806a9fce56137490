"""Checks whether a model can restore, and finds the shapes of its self-attention layers."""

from __future__ import annotations

import comfy.model_sampling
from comfy.ldm.modules.attention import SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample
from comfy.model_patcher import ModelPatcher

from ...block_slots import BlockSlot
from ...errors import PatchConflictError, UnsupportedModeError
from ...restoration.cache_plan import AttentionLayer
from ...shapes import Extent
from ..cast.attach import carries_cast
from ..repcontrolnet.fold import applied_branches
from ..unet import transformer_blocks, unet_blocks, unet_of

SUPPORTED = "checkpoints of Stable Diffusion 1.x, 2.x and SDXL, and their fine-tunes"

TOKEN_MERGERS = {"HyperTile": "HyperTile", "TomePatchModel": "Tome Patch Model (token merging)"}
"""Node classes whose attention patches rearrange tokens, and their display names."""


def check_restoring_model(model: ModelPatcher) -> None:
    """Raises unless a model's self-attention can be recorded and replayed.

    Raises:
        UnsupportedModeError: the model is not an image UNet with eps- or v-prediction.
        PatchConflictError: an earlier node merges tokens or skips steps.
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
            f"the connected model skips steps ({name}), so a restoration cannot follow its inversion step by step; "
            f"connect the model from before {name}, or bypass that node"
        )
    patches = transformer_options.get("patches", {})
    for patch in (*patches.get("attn1_patch", ()), *patches.get("attn1_output_patch", ())):
        node = TOKEN_MERGERS.get(getattr(patch, "__qualname__", "").partition(".")[0])
        if node is not None:
            raise PatchConflictError(
                f"the connected model merges or rearranges tokens ({node}), so features of one step do not fit those "
                f"of another; connect the model from before {node}, or bypass that node"
            )


def check_model_is_plain(model: ModelPatcher) -> None:
    """Raises if a model carries a RepControlNet or a cast, because both would act at the wrong place in a crop.

    Raises:
        PatchConflictError: it does; the message says which earlier model to connect.
    """
    for branch in applied_branches(model):
        raise PatchConflictError(
            f"the connected model carries the RepControlNet '{branch.name}', whose condition image shows the whole "
            "picture; connect the model from before Apply RepControlNet, and connect the RepControlNet to this node's "
            "repcontrolnet input"
        )
    if carries_cast(model):
        raise PatchConflictError(
            "the connected model carries a cast, whose regions belong to the whole picture; connect the model from "
            "before Apply Cast, and connect the adapter and the cast to this node"
        )


def self_attention_layers(model: ModelPatcher, latent: Extent) -> tuple[AttentionLayer, ...]:
    """Returns every self-attention layer of a UNet with the shape of its output, in running order.

    Args:
        model: a model that passes `check_restoring_model`.
        latent: size of the latent.
    Returns:
        The layers. Their shapes follow from the architecture, without a model call.
    """
    layers: list[AttentionLayer] = []
    skips: list[Extent] = []
    extent = latent
    for kind, number, block in unet_blocks(unet_of(model)):
        if kind == "output":
            extent = skips.pop()
        layers += [
            AttentionLayer(BlockSlot(kind, number, index), extent.num_cells, layer.attn1.to_q.in_features)
            for index, layer in enumerate(transformer_blocks(block))
            if not layer.disable_self_attn
        ]
        if kind == "input":
            if any(isinstance(module, Downsample) for module in block):
                extent = extent.downscaled(2)
            skips.append(extent)
    return tuple(layers)
