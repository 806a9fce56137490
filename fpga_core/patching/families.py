"""What the pack must know of a family of models: one record each, and nothing about it anywhere else.

DIIR needs no other step for a flow than for a UNet that predicts noise: with `d = (x - x0) / sigma`, Euler's method in
sigma runs along the ODE of both. What differs is where self-attention is, and which of its tokens are the picture's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, ClassVar, Protocol

from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from comfy.ldm.krea2.model import SingleStreamDiT
from comfy.ldm.lens.model import LensTransformer2DModel
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.mage_flow.model import MageFlowTransformer2DModel
from comfy.ldm.modules.attention import SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.model_base import SDXL
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST, EPS, V_PREDICTION
from torch import Tensor, nn
from torch.nn import functional

from ..block_slots import BlockSlot
from ..restoration.feature_cache import AttentionLayer
from ..shapes import Extent, cell_means, token_grid
from .unet import base_of, layer_grids, unet_of

Options = dict[str, Any]

AtLayer = Callable[[Tensor, BlockSlot, Options], Tensor]
"""What a run does at a self-attention layer. It gets the output at the picture's tokens, (items, tokens, channels), the
layer, and the host's options of the call, and returns what takes the output's place: the same tensor if nothing does.
"""


class ModelFamily(Protocol):
    """A family of models, with all that restoring faces and placing people need of it.

    Attributes:
        name: what artists call it.
        noise: the host's class of its noise, whose ODE is inverted.
        takes_adapters: whether identity adapters and RepControlNets act in it: they are made for UNets.
    """

    noise: ClassVar[type]
    takes_adapters: ClassVar[bool]

    @property
    def name(self) -> str: ...

    def native_size_px(self, model: ModelPatcher) -> int:
        """Returns the side of the pictures that a model was trained on."""
        ...

    def layers(self, model: ModelPatcher, latent: Extent) -> tuple[AttentionLayer, ...]:
        """Returns every self-attention layer with the shape of its output, in running order, without a model call."""
        ...

    def reach(self, model: ModelPatcher, latent: Extent, *, options: Options, at_layer: AtLayer) -> Options:
        """Returns transformer options in which `at_layer` sees every self-attention layer; the given ones stay as they
        are.
        """
        ...

    def embeds_guidance(self, model: ModelPatcher) -> bool:
        """Returns whether guidance is an input of a model, which was distilled so."""
        ...

    def spread(
        self, net: nn.Module, maps: Tensor, layer: str, *, num_tokens: int, references: Sequence[Extent]
    ) -> tuple[slice, Tensor] | None:
        """Spreads maps of the picture over the tokens that a layer reads.

        Args:
            net: the network.
            maps: (batch, maps, height, width) on the latent.
            layer: path of the layer in the network.
            num_tokens: the tokens that it reads.
            references: sizes of the latents of reference pictures.
        Returns:
            Which of the layer's tokens are the picture's, and the maps' means over them, (batch, maps, tokens); None
            if none of them is, as in layers for the text.
        """
        ...


@dataclass(frozen=True)
class UNetFamily:
    """UNets, whose self-attention sees the picture alone and is reached by a patch of the host."""

    name: str = "Stable Diffusion 1.x, 2.x and SDXL"
    noise: ClassVar[type] = EPS
    takes_adapters: ClassVar[bool] = True
    NATIVE_PX: ClassVar[int] = 512
    NATIVE_SD2_V_PX: ClassVar[int] = 768
    NATIVE_SDXL_PX: ClassVar[int] = 1024

    def native_size_px(self, model: ModelPatcher) -> int:
        if isinstance(model.model, SDXL):
            return self.NATIVE_SDXL_PX
        predicts_v = isinstance(model.get_model_object("model_sampling"), V_PREDICTION)
        return self.NATIVE_SD2_V_PX if predicts_v and base_of(unet_of(model)) == "sd21" else self.NATIVE_PX

    def layers(self, model: ModelPatcher, latent: Extent) -> tuple[AttentionLayer, ...]:
        return tuple(
            AttentionLayer(slot, grid.num_cells, layer.attn1.to_q.in_features)
            for slot, layer, grid in layer_grids(unet_of(model), latent)
            if not layer.disable_self_attn
        )

    def reach(self, model: ModelPatcher, latent: Extent, *, options: Options, at_layer: AtLayer) -> Options:
        def patch(output: Tensor, extra: Options) -> Tensor:
            kind, number = extra["block"]
            return at_layer(output, BlockSlot(kind, number, extra["block_index"]), extra)

        patches = options.get("patches", {})
        after = [*patches.get("attn1_output_patch", ()), patch]
        return {**options, "patches": {**patches, "attn1_output_patch": after}}

    def embeds_guidance(self, model: ModelPatcher) -> bool:
        return False

    def spread(
        self, net: nn.Module, maps: Tensor, layer: str, *, num_tokens: int, references: Sequence[Extent]
    ) -> tuple[slice, Tensor] | None:
        if re.search(r"attn2\.to_[kv]$", layer):
            return None
        grid = token_grid(Extent(maps.shape[-1], maps.shape[-2]), num_tokens)
        return slice(0, num_tokens), cell_means(maps, grid).flatten(2)


@dataclass(frozen=True, kw_only=True)
class TransformerFamily:
    """Transformers that see text and picture in one attention, which the host lets others override.

    The order of the tokens is text, picture, reference pictures; or references first where the picture comes last; or
    the picture first. The picture's are counted from the latent, so that nothing else is taken for them.

    Attributes:
        name: what artists call it.
        stacks: the host's `block_type` of each stack of blocks, and the attribute that holds it, in running order.
        width: attribute of the channels of an attention's output, before its last projection.
        patch: attribute of the side of a token in latent pixels; None if a token is one latent pixel.
        padding: attribute of the number to whose multiple the picture's tokens are padded.
        guidance: attribute that says whether guidance is an input of the model.
        second: attribute by which a block says that it has another attention, of the picture's tokens alone.
        is_numbered: whether the host says in which block an attention runs.
        is_picture_first: whether the picture stands before the text.
        native_px: side of the pictures that it was trained on.
        references: attribute of how reference pictures are numbered, None in a network that reads none.
        text_layers: regular expression for the paths of layers that read the text alone.
    """

    name: str
    stacks: Mapping[str, str]
    width: str
    patch: str | None = "patch_size"
    padding: str | None = None
    guidance: str | None = None
    second: str | None = None
    is_numbered: bool = True
    is_picture_first: bool = False
    native_px: int = 1024
    references: str | None = None
    text_layers: str = r"txt|text|context|cap_embedder|attn\.add_|to_add_out"
    noise: ClassVar[type] = CONST
    takes_adapters: ClassVar[bool] = False

    def native_size_px(self, model: ModelPatcher) -> int:
        return self.native_px

    def layers(self, model: ModelPatcher, latent: Extent) -> tuple[AttentionLayer, ...]:
        net = _network(model)
        num_tokens, channels = self.num_tokens(net, latent), attrgetter(self.width)(net)
        return tuple(
            AttentionLayer(BlockSlot(kind, number, index), num_tokens, channels)
            for kind, stack in self.stacks.items()
            for number, block in enumerate(getattr(net, stack))
            for index in range(2 if self.second and attrgetter(self.second)(block) else 1)
        )

    def reach(self, model: ModelPatcher, latent: Extent, *, options: Options, at_layer: AtLayer) -> Options:
        net = _network(model)
        attend = SeenAttention(self, net, latent, at_layer, options.get("optimized_attention_override"))
        reached = {**options, "optimized_attention_override": attend}
        return reached if self.is_numbered else _numbered(reached, len(getattr(net, self.stacks["double"])))

    def embeds_guidance(self, model: ModelPatcher) -> bool:
        return self.guidance is not None and attrgetter(self.guidance)(_network(model))

    def reads_references(self, net: nn.Module) -> bool:
        """Returns whether a network reads reference pictures that prompts carry."""
        return self.references is not None and attrgetter(self.references)(net) is not None

    def picture_tokens(self, net: nn.Module, latent: Extent, *, num_tokens: int, num_references: int) -> slice:
        """Returns which tokens of an attention are the picture's own.

        Args:
            net: the network.
            latent: size of the picture's latent.
            num_tokens: all tokens of the attention.
            num_references: those of reference pictures that follow the picture.
        """
        num_picture = self.num_tokens(net, latent)
        multiple = (getattr(net, self.padding) if self.padding else None) or 1
        behind = num_references + -(-num_picture // multiple) * multiple
        first = 0 if self.is_picture_first else num_tokens - behind
        return slice(first, first + num_picture)

    def spread(
        self, net: nn.Module, maps: Tensor, layer: str, *, num_tokens: int, references: Sequence[Extent]
    ) -> tuple[slice, Tensor] | None:
        latent = Extent(maps.shape[-1], maps.shape[-2])
        num_references = sum(self.num_tokens(net, size) for size in references) if self.references else 0
        num_picture = self.num_tokens(net, latent)
        place = self.picture_tokens(net, latent, num_tokens=num_tokens, num_references=num_references)
        if place.start < 0:  # before the picture is padded
            first = num_tokens - num_references - num_picture
            place = slice(first, first + num_picture)
        if place.start < 0 or place.stop > num_tokens or re.search(self.text_layers, layer):
            return None
        return place, self.token_means(net, maps)

    def token_means(self, net: nn.Module, maps: Tensor) -> Tensor:
        """Returns the means of maps over the picture's tokens, (batch, maps, tokens).

        Args:
            net: the network.
            maps: (batch, maps, height, width) on the latent.
        """
        side = self._token_side(net)
        means = functional.avg_pool2d(maps.float(), side, ceil_mode=True, count_include_pad=False)
        return means.flatten(2)

    def num_tokens(self, net: nn.Module, latent: Extent) -> int:
        """Returns how many tokens a picture has in a network."""
        return latent.downscaled(self._token_side(net)).num_cells

    def _token_side(self, net: nn.Module) -> int:
        return getattr(net, self.patch) if self.patch else 1


@dataclass(frozen=True, eq=False)
class SeenAttention:
    """The host's override of attention that shows whole outputs to a run. Whatever takes attention apart goes inside.

    Attributes:
        family: what is known of the network.
        net: the network.
        latent: size of the picture's latent.
        at_layer: what the run does.
        previous: another override, which computes the attention then.
    """

    family: TransformerFamily
    net: nn.Module
    latent: Extent
    at_layer: AtLayer
    previous: Callable[..., Tensor] | None

    def __call__(self, attention: Callable[..., Tensor], *inputs: Any, **named: Any) -> Tensor:  # noqa: ANN401
        family, call = self.family, named["transformer_options"]
        output = self.previous(attention, *inputs, **named) if self.previous else attention(*inputs, **named)
        if call.get("block_type") not in family.stacks:  # what refines the text before it meets the picture
            return output
        num_references = sum(call.get("reference_image_num_tokens", ()))
        place = family.picture_tokens(self.net, self.latent, num_tokens=output.shape[1], num_references=num_references)
        is_alone = place.start == 0 and not family.is_picture_first
        slot = BlockSlot(call["block_type"], call["block_index"], int(is_alone))
        own = output[:, place]  # (items, tokens, heads x head channels)
        if (taken := self.at_layer(own, slot, call)) is not own:
            own.copy_(taken)
        return output


def within_seen(
    options: Options, override: Callable[[Callable[..., Tensor] | None], Callable[..., Tensor]]
) -> Callable[..., Tensor]:
    """Returns the override of attention of some options with another one in it, inside what sees whole outputs.

    Args:
        options: transformer options.
        override: makes the override, of the one that computes the attention then.
    """
    outer = options.get("optimized_attention_override")
    if isinstance(outer, SeenAttention):
        return replace(outer, previous=override(outer.previous))
    return override(outer)


def _network(model: ModelPatcher) -> nn.Module:
    return model.get_model_object("diffusion_model")


def _numbered(options: Options, num_blocks: int) -> Options:
    """Returns transformer options that say, as in other transformers, in which block an attention runs."""

    def numbering(number: int, previous: Callable[..., Options] | None) -> Callable[..., Options]:
        def block(inputs: Options, extra: Options) -> Options:
            where = {**inputs["transformer_options"], "block_type": "double", "block_index": number}
            inputs = {**inputs, "transformer_options": where}
            return extra["original_block"](inputs) if previous is None else previous(inputs, extra)

        return block

    replaced = options.get("patches_replace", {})
    slots = {("double_block", number): number for number in range(num_blocks)}
    blocks = replaced.get("dit", {})
    numbered = {slot: numbering(number, blocks.get(slot)) for slot, number in slots.items()}
    return {**options, "patches_replace": {**replaced, "dit": {**blocks, **numbered}}}


FAMILIES: Mapping[type[nn.Module], ModelFamily] = {
    UNetModel: UNetFamily(),
    OpenAISignatureMMDITWrapper: TransformerFamily(
        name="SD3 and SD3.5",
        stacks={"double": "joint_blocks"},
        width="hidden_size",
        second="x_block.x_block_self_attn",
        is_numbered=False,
    ),
    Flux: TransformerFamily(
        name="FLUX.1 and FLUX.2",
        stacks={"double": "double_blocks", "single": "single_blocks"},
        width="hidden_size",
        guidance="params.guidance_embed",
        references="params.default_ref_method",
    ),
    Chroma: TransformerFamily(
        name="Chroma", stacks={"double": "double_blocks", "single": "single_blocks"}, width="hidden_size"
    ),
    QwenImageTransformer2DModel: TransformerFamily(
        name="Qwen-Image",
        stacks={"double": "transformer_blocks"},
        width="inner_dim",
        native_px=1328,
        references="default_ref_method",
    ),
    MageFlowTransformer2DModel: TransformerFamily(
        name="Mage-Flow", stacks={"double": "transformer_blocks"}, width="inner_dim"
    ),
    LensTransformer2DModel: TransformerFamily(
        name="Lens", stacks={"double": "transformer_blocks"}, width="inner_dim", patch=None, is_picture_first=True
    ),
    NextDiT: TransformerFamily(
        name="Z-Image and Lumina 2", stacks={"double": "layers"}, width="dim", padding="pad_tokens_multiple"
    ),
    SingleStreamDiT: TransformerFamily(
        name="Krea 2",
        stacks={"single": "blocks"},
        width="first.out_features",
        patch="patch",
        references="default_ref_method",
    ),
}
"""The families by the host's class of their network. Subclasses of transformers treat pictures in ways of their own."""


def find_family(model: ModelPatcher) -> ModelFamily | None:
    """Returns the family of a model; None if it belongs to none."""
    net = _network(model)
    if any(isinstance(module, SpatialVideoTransformer) for module in net.modules()):
        return None
    return FAMILIES.get(UNetModel if isinstance(net, UNetModel) else type(net))


def latent_shape(model: ModelPatcher, batch: int, latent: Extent) -> tuple[int, ...]:
    """Returns the shape of a model's latents: (batch, channels, height, width), with an axis of one frame before the
    height if its autoencoder is one for video.
    """
    form = model.model.latent_format
    frames = (1,) * (form.latent_dimensions - 2)
    return (batch, form.latent_channels, *frames, latent.height, latent.width)
