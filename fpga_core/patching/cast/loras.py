"""People by LoRAs that were trained on them, several at once, each in their own region.

A LoRA changes weights, `W + s B A`, so it acts wherever its layer does. `s M B A x` beside `W x` is the same, and lets
each token choose: the weights of the regions multiply what `A` gives, one block of ranks for each person. Everybody
then shares one call of the model in each step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.ops
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor, nn

from ...errors import UnsupportedModeError
from ...identity.cast import Cast, CastMember
from ...identity.identity import PersonLora
from ...shapes import Extent, cell_means
from ..added_layers import Add, add_layers
from ..conditioning import Conditioning
from ..families import ModelFamily, find_family
from ..schedule import StepRange
from ..unet import UNET_PREFIX
from .conditioning import PlacedCast, new_cast_key
from .placed import Call, PlacedPatch, place_people

ReadPatches = Callable[[ModelPatcher, PersonLora], dict[Any, Any]]


def lora_patches(model: ModelPatcher, lora: PersonLora) -> dict[Any, Any]:
    """Returns what a LoRA changes in a model, as the host reads it; nothing if it was trained on another base."""
    layers = comfy.lora.model_lora_keys_unet(model.model, {})
    return comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(lora.weights)), layers, log_missing=False)


def apply_loras(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    cast: Cast,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
    patches: ReadPatches = lora_patches,
) -> tuple[ModelPatcher, Conditioning, Conditioning]:
    """Lets the LoRA of each person of a cast act in their region.

    One person in the whole picture, for the whole run, is the host's own LoRA. Otherwise, what has no place in the
    picture (text, the noise level) is changed by each of `n` people with a weight of `1 / n`, as if they overlapped.

    Args:
        model: a model that has layers of everyone's LoRA (`lora_patches`).
        positive, negative: the prompts.
        cast: the people, who have LoRAs.
        strength: factor on the strength of every member and LoRA; a member with strength 0 is absent.
        steps: the part of the schedule in which the LoRAs act.
        patches: reads what a LoRA changes in a model.
    Returns:
        A patched clone of the model, and the two conditionings; if nobody acts, the three are returned unchanged.
    Raises:
        UnsupportedModeError: LoRAs of this model, or LoRAs of this kind, cannot be confined to a region.
    """
    members = tuple(member for member in cast.members if strength * member.strength)
    if not members:
        return model, positive, negative
    patched, (first, *others) = model.clone(), members
    if not others and first.region is None and steps.is_whole_run:
        patched.add_patches(patches(model, _lora(first)), strength * first.strength * _lora(first).strength)
        return patched, positive, negative
    family = find_family(model)
    if family is None:
        raise UnsupportedModeError(
            f"let one person have the whole picture for the whole run: LoRAs of {type(model.model).__name__} cannot be "
            "confined to regions or steps"
        )
    key, layers = new_cast_key(), LowRankLayers(model, members, patches)
    strengths = torch.tensor([strength * member.strength for member in members])
    live = LorasInPlaces(layers, family, placeless=strengths / len(members))
    add_layers(patched, key, layers=layers, hooks=live.hooks)
    PlacedPatch(key=key, steps=steps, act=live).attach(patched)
    placed = PlacedCast(cast=replace(cast, members=members), strength=strength)
    return patched, place_people(positive, key, placed), place_people(negative, key, placed)


class LowRankLayers(nn.Module):
    """The low-rank layers of several people's LoRAs, side by side, as modules that the host can move and cast.

    `owners` holds who has which rank, (ranks,) numbers of people, and `owners_of` which of these each layer has: most
    layers have the same.

    Raises:
        UnsupportedModeError: a LoRA has layers that are not of low rank.
    """

    def __init__(self, model: ModelPatcher, members: tuple[CastMember, ...], patches: ReadPatches) -> None:
        super().__init__()
        net = model.get_model_object("diffusion_model")
        found: dict[str, list[tuple[int, Tensor, Tensor]]] = {}
        for person, member in enumerate(members):
            lora = _lora(member)
            for key, patch in patches(model, lora).items():
                name, offset = key if isinstance(key, tuple) else (key, None)
                path = name.removeprefix(UNET_PREFIX).removesuffix(".weight")
                up, down = _low_rank(patch, net.get_submodule(path).weight.shape, offset, lora)
                found.setdefault(path, []).append((person, up, down))
        self.paths = tuple(found)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        whose: dict[tuple[int, ...], int] = {}
        self.owners_of: list[int] = []
        for path, parts in found.items():
            base = net.get_submodule(path)
            down, up = torch.cat([part[2] for part in parts]), torch.cat([part[1] for part in parts], dim=1)
            self.downs.append(_layer(base, down, is_down=True))
            self.ups.append(_layer(base, up, is_down=False))
            ranks = tuple(person for person, _, low in parts for _ in range(len(low)))
            self.owners_of.append(whose.setdefault(ranks, len(whose)))
        self.owners = tuple(map(torch.tensor, whose))


@dataclass(frozen=True, eq=False)
class Places:
    """Where everyone is in one call.

    Attributes:
        net: the network.
        weights: (batch, people, height, width) of the latent.
        references: sizes of the latents of reference pictures.
        placeless: weights of what has no place in the picture, (people,).
        kept: the masks that layers have asked for in this call; most ask for the same.
    """

    net: nn.Module
    weights: Tensor
    references: tuple[Extent, ...]
    placeless: Tensor
    kept: dict[Hashable, Tensor] = field(default_factory=lambda: {})

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Returns a mask, which is made when it is first asked for."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


class LorasInPlaces:
    """Adds to each layer's output what people's LoRAs give it, each token by the weights of its place."""

    def __init__(self, layers: LowRankLayers, family: ModelFamily, placeless: Tensor) -> None:
        self.layers, self.family, self.placeless = layers, family, placeless
        self.has_place: dict[Hashable, bool] = {}
        self.thread = threading.local()  # samplers may run in threads, one for each GPU

    @property
    def hooks(self) -> dict[str, Add]:
        """What is added to each layer, by the layer's path."""
        return {path: partial(self._add, number) for number, path in enumerate(self.layers.paths)}

    def __call__(
        self, call: Call, model: BaseModel, weights: Tensor, options: dict[str, Any], conds: dict[str, Any]
    ) -> Tensor:
        """Runs a call with everyone in place, uncompiled: a compiled model does not notice the hooks."""
        if not weights.any():
            return call()
        net = model.diffusion_model
        references = tuple(Extent(latent.shape[-1], latent.shape[-2]) for latent in conds.get("ref_latents", ()))
        self.thread.places = Places(net, weights, references, self.placeless.to(weights.device))
        try:
            with torch.compiler.set_stance("force_eager"):
                return call()
        finally:
            del self.thread.places

    def _add(self, number: int, base: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        places: Places | None = getattr(self.thread, "places", None)
        if places is None:
            return output
        ranks = self.layers.downs[number](inputs[0])
        whose, path, people_axis = self.layers.owners_of[number], self.layers.paths[number], -1
        if not isinstance(base, nn.Linear):
            grid, people_axis = Extent(ranks.shape[-1], ranks.shape[-2]), 1
            where, everyones = grid, places.once(grid, lambda: cell_means(places.weights, grid))
        elif ranks.ndim == 3:
            where, everyones = self._on_tokens(places, path, ranks.shape[1])
        else:
            where, everyones = None, places.placeless

        def of_ranks() -> Tensor:
            return everyones.index_select(people_axis, self.layers.owners[whose].to(everyones.device)).to(ranks)

        mask = places.once((where, ranks.ndim, whose, ranks.dtype), of_ranks)
        return output + self.layers.ups[number](ranks * mask)

    def _on_tokens(self, places: Places, layer: str, num_tokens: int) -> tuple[int | None, Tensor]:
        """Returns where the tokens of a layer are, and everyone's weights there, (batch or 1, tokens or 1, people)."""
        case = (layer, num_tokens, places.weights.shape, places.references)
        if case not in self.has_place or (self.has_place[case] and num_tokens not in places.kept):
            spread = self.family.spread(
                places.net, places.weights, layer, num_tokens=num_tokens, references=places.references
            )
            self.has_place[case] = spread is not None
            if spread is not None:
                picture, weights = spread
                everywhere = places.placeless[:, None].repeat(len(weights), 1, num_tokens)
                everywhere[:, :, picture] = weights
                places.kept[num_tokens] = everywhere.movedim(1, -1)
        return (num_tokens, places.kept[num_tokens]) if self.has_place[case] else (None, places.placeless[None, None])


def _lora(member: CastMember) -> PersonLora:
    if member.identity.lora is None:
        raise UnsupportedModeError(f"choose a LoRA in Describe Person: '{member.identity.name}' has none")
    return member.identity.lora


def _low_rank(
    patch: Any,  # noqa: ANN401 (of the host)
    shape: torch.Size,
    offset: tuple[int, int, int] | None,
    lora: PersonLora,
) -> tuple[Tensor, Tensor]:
    """Returns what a LoRA adds to a weight at its own strength, as a product: (out, rank) and (rank, in, ...)."""
    if not isinstance(patch, LoRAAdapter) or any(other is not None for other in patch.weights[3:]):
        raise UnsupportedModeError(
            f"let one person have the whole picture for the whole run, or use another LoRA: '{lora.name}' has layers "
            f"that are not of low rank ({type(patch).__name__}, DoRA or full weights), which cannot be confined to a "
            "region"
        )
    up, down, alpha = patch.weights[:3]
    scale = lora.strength * (1.0 if alpha is None else alpha / down.shape[0])
    up = up.flatten(1) * scale
    down = down.reshape(len(down), -1, *shape[2:])
    if offset is not None:  # a part of a fused layer
        axis, start, length = offset
        whole = (up.new_zeros(shape[0], up.shape[1]), down.new_zeros(len(down), *shape[1:]))[axis]
        whole.narrow(axis, start, length).copy_((up, down)[axis])
        up, down = (whole, down) if axis == 0 else (up, whole)
    return up, down


def _layer(base: nn.Module, weight: Tensor, *, is_down: bool) -> nn.Module:
    """Returns a layer of one weight: with the geometry of `base` on the way down, of single cells on the way up."""
    if isinstance(base, nn.Linear):
        layer = comfy.ops.manual_cast.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    else:
        weight = weight if is_down else weight[..., None, None]
        geometry: Mapping[str, Any] = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
        size = base.kernel_size if is_down else 1
        channels = weight.shape[1], weight.shape[0]
        layer = comfy.ops.manual_cast.Conv2d(
            *channels, size, bias=False, device="meta", **(geometry if is_down else {})
        )
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
