"""A Stable Diffusion 1.x, 2.x or SDXL UNet: its blocks and its attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..block_slots import Attention, BlockSlot, TransformerBlock
from ..errors import UnsupportedModeError
from ..repcontrolnet.branch import recognise_base
from ..shapes import Extent

UNET_PREFIX = "diffusion_model."
"""The prefix of the UNet's parameters in a model's patches."""


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
