"""A UNet as a function of tensors alone, with all that steers it as inputs, and its export to ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ...block_slots import BlockSlot
from ...identity.adapters import IdentityAdapter
from ...shapes import Extent
from ..unet import cross_attention_layers, layer_grids

NUM_TRACED = 2
"""Prompts, and people, in the example with which a UNet is traced; both may differ in a run."""
TRACED_SIDE = 16
"""Side of the example's latent."""
REGIONS = "regions_{level}"


class EngineNet(nn.Module):
    """A UNet with a condition image's feature and a cast as inputs.

    Attributes:
        unet: an SD1.5 or SD2 UNet with all patches in its weights.
        levels: the level of each cross attention. The layers of a level see the latent on the same grid.
    """

    def __init__(self, unet: UNetModel, adapter: IdentityAdapter | None) -> None:
        super().__init__()
        self.unet = unet
        grids = {slot: grid for slot, _, grid in layer_grids(unet, Extent(TRACED_SIDE, TRACED_SIDE))}
        sizes = list(dict.fromkeys(grids.values()))
        self.levels = {slot: sizes.index(grid) for slot, grid in grids.items()}
        self._layers = cross_attention_layers(unet)
        self._projections = None if adapter is None else adapter.projections

    @property
    def num_levels(self) -> int:
        return len(set(self.levels.values()))

    @property
    def input_names(self) -> list[str]:
        regions = [REGIONS.format(level=level) for level in range(self.num_levels)]
        return ["x", "timesteps", "context", "hint", "tokens", *regions]

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, hint: Tensor, tokens: Tensor, *regions: Tensor
    ) -> Tensor:
        """Computes what the UNet predicts.

        Args:
            x: (batch, channels, height, width).
            timesteps: (batch,).
            context: text, (batch, text tokens, width).
            hint: what is added after the first convolution, (batch, model channels, height, width).
            tokens: identity tokens, (batch, people, tokens, width), of at least one person.
            regions: for each level, strength times region of each person, (batch, people, queries).
        Returns:
            (batch, channels, height, width).
        """

        def attend_to(slot: BlockSlot) -> Any:  # noqa: ANN401
            def attend(q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any], **_: Any) -> Tensor:  # noqa: ANN401
                num_heads = extra["n_heads"]
                text = attention_pytorch(q, k, v, num_heads)
                keys, values = self._keys_values(slot, tokens)
                return text + identities(q, keys, values, weights=regions[self.levels[slot]], num_heads=num_heads)

            return attend

        options = {
            "patches_replace": {"attn2": {tuple(slot): attend_to(slot) for slot in self._layers}},
            "optimized_attention_override": lambda _attention, *args, **kwargs: attention_pytorch(*args, **kwargs),
        }
        return self.unet(x, timesteps, context=context, control={"input": [hint]}, transformer_options=options)

    def _keys_values(self, slot: BlockSlot, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if self._projections is None:
            layer = self._layers[slot]
            return layer.to_k(tokens), layer.to_v(tokens)
        projection = self._projections[slot]
        return tokens @ projection.key.to(tokens).T, tokens @ projection.value.to(tokens).T

    def example(self) -> tuple[Tensor, ...]:
        """Returns inputs of the right widths, with which the UNet is traced."""
        like: Any = next(self.unet.parameters())
        layer: Any = next(iter(self._layers.values()))
        token_dim = layer.to_k.in_features
        if self._projections is not None:
            token_dim = next(iter(self._projections.values())).key.shape[1]
        width, batch, side = layer.to_k.in_features, NUM_TRACED, TRACED_SIDE
        shapes: list[Sequence[int]] = [
            (batch, self.unet.in_channels, side, side),
            (batch,),
            (batch, 77, width),
            (batch, self.unet.model_channels, side, side),
            (batch, NUM_TRACED, 4, token_dim),
            *((batch, NUM_TRACED, (side >> level) ** 2) for level in range(self.num_levels)),
        ]
        return tuple(torch.rand(*shape, dtype=like.dtype, device=like.device) for shape in shapes)


def identities(q: Tensor, keys: Tensor, values: Tensor, *, weights: Tensor, num_heads: int) -> Tensor:
    """Computes `identity_attention` for any numbers of prompts, people and queries, without a decision on them.

    Args:
        q: (batch, queries, inner_dim).
        keys, values: (batch, people, tokens, inner_dim).
        weights: (batch, people, queries).
        num_heads: the attention heads in inner_dim.
    """
    head_dim = q.shape[-1] // num_heads
    heads = q.unflatten(-1, (num_heads, head_dim)).permute(0, 2, 1, 3)[:, None]  # (batch, 1, heads, queries, head_dim)
    keys = keys.unflatten(-1, (num_heads, head_dim)).permute(0, 1, 3, 4, 2) * head_dim**-0.5
    values = values.unflatten(-1, (num_heads, head_dim)).permute(0, 1, 3, 2, 4)
    output = (heads @ keys).softmax(dim=-1) @ values  # (batch, people, heads, queries, head_dim)
    output = (output * weights[:, :, None, :, None]).sum(dim=1)
    return output.permute(0, 2, 1, 3).flatten(2)


def export_unet(net: EngineNet, file: Path) -> None:
    """Writes a UNet as ONNX, with its weights beside it if they are too large for one file.

    Args:
        net: the UNet with its inputs.
        file: where the graph goes.
    """
    batch, people = {0: "batch"}, {0: "batch", 1: "people"}
    picture = {0: "batch", 2: "height", 3: "width"}
    axes = {"x": picture, "timesteps": batch, "context": {**batch, 1: "text"}, "hint": picture, "output": picture}
    axes |= {"tokens": people}
    axes |= {REGIONS.format(level=level): {**people, 2: f"queries_{level}"} for level in range(net.num_levels)}
    with torch.inference_mode():
        torch.onnx.export(
            net,
            net.example(),
            str(file),
            input_names=net.input_names,
            output_names=["output"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
