"""A Stable Diffusion 1.x, 2.x or SDXL UNet: its blocks and attention, its native size, and whether it can restore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel
from comfy.model_base import SDXL
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import EPS, V_PREDICTION
from torch import nn

from ..block_slots import Attention, BlockSlot, TransformerBlock
from ..errors import PatchConflictError, UnsupportedModeError
from ..repcontrolnet.branch import recognise_base
from ..restoration.feature_cache import AttentionLayer
from ..shapes import Extent

UNET_PREFIX = "diffusion_model."
"""The prefix of the UNet's parameters in a model's patches."""

NATIVE_SIZE_PX = 512
NATIVE_SIZE_SD2_V_PX = 768
NATIVE_SIZE_SDXL_PX = 1024

SUPPORTED = "checkpoints of Stable Diffusion 1.x, 2.x and SDXL, and their fine-tunes"

TOKEN_MERGERS = {"HyperTile": "HyperTile", "TomePatchModel": "Tome Patch Model (token merging)"}
"""Node classes whose attention patches rearrange tokens, and their display names."""


def unet_of(model: ModelPatcher) -> UNetModel:
    """Returns the UNet of a model of the Stable Diffusion 1.x/2.x/XL family.

    Raises:
        UnsupportedModeError: the model is a transformer (Flux, SD3, ...) or another architecture.
    """
    unet = model.get_model_object("diffusion_model")
    if not isinstance(unet, UNetModel):
        raise UnsupportedModeError(
            f"the connected model is of the family {type(model.model).__name__} ({type(unet).__name__}), but this node "
            "needs a UNet model: an SD1.5 or SDXL checkpoint, or a fine-tune of one"
        )
    return unet


def base_of(unet: nn.Module) -> str:
    """Returns the name of a UNet's architecture, as `recognise_base` gives it."""
    return recognise_base({name: parameter.shape for name, parameter in unet.named_parameters()})


def native_size_px(model: ModelPatcher) -> int:
    """Returns the side of the pictures that a model was trained on.

    Raises:
        UnsupportedModeError: the model is not a UNet.
    """
    unet = unet_of(model)
    if isinstance(model.model, SDXL):
        return NATIVE_SIZE_SDXL_PX
    predicts_v = isinstance(model.get_model_object("model_sampling"), V_PREDICTION)
    return NATIVE_SIZE_SD2_V_PX if predicts_v and base_of(unet) == "sd21" else NATIVE_SIZE_PX


def unet_blocks(unet: Any) -> Iterator[tuple[str, int, Iterable[nn.Module]]]:  # noqa: ANN401
    """Yields the blocks of a UNet, or of a ControlNet (which has no output blocks), in running order.

    Yields:
        ComfyUI's name for the kind of block, the number of the block among its kind, and the block.
    """
    yield from (("input", number, block) for number, block in enumerate(unet.input_blocks))
    if unet.middle_block is not None:  # some distilled SDXL have none
        yield "middle", 0, unet.middle_block
    yield from (("output", number, block) for number, block in enumerate(getattr(unet, "output_blocks", ())))


def transformer_blocks(block: Iterable[Any]) -> list[TransformerBlock]:
    """Returns the transformer blocks in a block of a UNet; each holds a self attention and a cross attention."""
    return [part for module in block if isinstance(module, SpatialTransformer) for part in module.transformer_blocks]


def layer_grids(unet: Any, latent: Extent) -> Iterator[tuple[BlockSlot, TransformerBlock, Extent]]:  # noqa: ANN401
    """Yields the transformer blocks of a UNet or a ControlNet in running order, with the grid on which each sees a
    latent.
    """
    extent, skips = latent, list[Extent]()
    for kind, number, block in unet_blocks(unet):
        if kind == "output":
            extent = skips.pop()
        for index, layer in enumerate(transformer_blocks(block)):
            yield BlockSlot(kind, number, index), layer, extent
        if kind == "input":
            if any(isinstance(module, Downsample) for module in block):
                extent = extent.downscaled(2)
            skips.append(extent)


def cross_attention_layers(unet: Any) -> dict[BlockSlot, Attention]:  # noqa: ANN401
    """Returns the cross attentions of a UNet or a ControlNet, in running order."""
    return {
        BlockSlot(kind, number, index): transformer_block.attn2
        for kind, number, block in unet_blocks(unet)
        for index, transformer_block in enumerate(transformer_blocks(block))
    }


def self_attention_layers(model: ModelPatcher, latent: Extent) -> tuple[AttentionLayer, ...]:
    """Returns every self-attention layer of a UNet with the shape of its output, in running order.

    Args:
        model: a model that passes `check_restoring_model`.
        latent: size of the latent.
    Returns:
        The layers. Their shapes follow from the architecture, without a model call.
    """
    return tuple(
        AttentionLayer(slot, grid.num_cells, layer.attn1.to_q.in_features)
        for slot, layer, grid in layer_grids(unet_of(model), latent)
        if not layer.disable_self_attn
    )


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
    if not isinstance(sampling, EPS):
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
