"""Identities inside a ControlNet's cross attention: the first form of the paper's Eq. 1, and InstantID's IdentityNet.

The host hands a ControlNet's blocks no `transformer_options`. Its own forward is therefore run on a stand-in that hands
them on; neither its class nor its weights are touched, so the loaded ControlNet serves other nodes as it did.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import comfy.cldm.cldm
import torch
from comfy.conds import CONDRegular
from comfy.controlnet import ControlBase, ControlNet
from comfy.model_base import BaseModel
from comfy.model_patcher import CoreModelPatcher
from torch import Tensor, nn

from ...block_slots import BlockSlot
from ...errors import UnsupportedModeError
from ...identity.adapters import IdentityAdapter, KeyValue
from ...identity.cast import Cast
from ...identity.layer_emphasis import LayerEmphasis
from ...identity.masked_attention import add_identities, replace_by_identities
from ...shapes import Extent
from ..conditioning import Conditioning, add_cond, add_control, as_hint
from ..schedule import StepRange
from ..unet import cross_attention_layers
from .apply import check_adapter_fits, encode_cast
from .attention import CastRun, IdentityAttention, People
from .conditioning import CastTokens
from .slots import claim_slots

POSITIVE, NEGATIVE = 0, 1


def apply_cast_controlnet(
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlBase,
    adapter: IdentityAdapter,
    cast: Cast,
    image: Tensor,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> tuple[Conditioning, Conditioning]:
    """Applies a ControlNet in whose cross attention each person of a cast acts in their own region.

    Args:
        positive: gets the ControlNet, with the people.
        negative: gets the ControlNet, with what the adapter's negative carries.
        control_net: any ControlNet of the SD1.5 or SDXL family that the host loaded; it is not changed.
        adapter: makes the tokens. Its own projections are those of the UNet blocks that the ControlNet copies; without
            any, the ControlNet's are shared. InstantID's tokens stand in the text's place.
        cast: who acts where; a member with strength 0 is absent.
        image: condition images, (num_images, height, width, 3) in [0, 1].
        strength: of the ControlNet; 0 = nothing is done.
        steps: the part of the schedule in which the ControlNet acts.
    Returns:
        The two conditionings; with nobody in the cast, with the plain ControlNet.
    Raises:
        UnsupportedModeError: the ControlNet has no such cross attention.
        BaseModelError: the adapter does not fit the ControlNet.
        InvalidInputError: an identity lacks what the adapter reads, or the image is no picture.
    Source: FPGA Eq. 1 and section 3.1; InstantID section 3.
    """
    hint = as_hint(image)
    control_projections(adapter, control_model_of(control_net))
    acting = encode_cast(adapter, cast, 1.0)
    if strength == 0:
        return positive, negative
    control: ControlNet = control_net.copy()
    if acting is not None:
        control, positive, negative = put_people_into(control_net, adapter, acting, positive, negative)
    control.set_cond_hint(hint, strength, (steps.start_percent, steps.end_percent))
    return add_control(positive, negative, control)


def put_people_into(
    control_net: ControlBase,
    adapter: IdentityAdapter,
    carried: tuple[CastTokens, CastTokens],
    positive: Conditioning,
    negative: Conditioning,
) -> tuple[CastControlNet, Conditioning, Conditioning]:
    """A copy of a ControlNet in whose cross attention people act, and conditionings that say which of them is which.

    Args:
        carried: what the positive and the negative carry.
    Raises:
        UnsupportedModeError: the ControlNet has no such cross attention.
        BaseModelError: the adapter does not fit the ControlNet.
    """
    model = control_model_of(control_net)
    projections = control_projections(adapter, model)
    key, replaces_text = f"fpga_cast_{uuid.uuid4().hex}", adapter.recipe.replaces_text
    control = CastControlNet(control_net, CastControlModel(model, key, carried, projections, replaces_text))
    positive, negative = (
        add_cond(text, key, CastSide((side,))) for side, text in ((POSITIVE, positive), (NEGATIVE, negative))
    )
    return control, positive, negative


class CastSide(CONDRegular):
    """Which of the two conditionings each picture of a batch belongs to, POSITIVE or NEGATIVE; a tuple."""

    def process_cond(self, batch_size: int, area: object = None, **kwargs: Any) -> CastSide:  # noqa: ANN401
        if area is not None:
            raise UnsupportedModeError(
                "a cast inside a ControlNet cannot follow conditioning that is confined to an area: ComfyUI fits the "
                "whole condition image into the area and does not say where it lies; use a mask instead of the area, "
                "or Apply Cast on the model"
            )
        return CastSide(self.cond * batch_size)

    def can_concat(self, other: CastSide) -> bool:
        return True

    def concat(self, others: list[CastSide]) -> tuple[int, ...]:
        return tuple(side for part in (self, *others) for side in part.cond)

    def size(self) -> list[int]:
        return [len(self.cond)]


@dataclass(eq=False)
class CastControlModel:
    """A ControlNet's model with a cast in its cross attention; the host calls it in the model's place.

    Attributes:
        model: the ControlNet's own.
        key: names the `CastSide` in the conditioning.
        carried: what positive and negative carry.
        projections: the adapter's own for the ControlNet's layers, or None: those of the layers themselves.
        replaces_text: whether the tokens stand in the text's place; where nobody acts, those of nobody do.
    """

    model: nn.Module
    key: str
    carried: tuple[CastTokens, CastTokens]
    projections: Mapping[BlockSlot, KeyValue] | None
    replaces_text: bool
    _run: CastRun = field(init=False)

    def __post_init__(self) -> None:
        self.begin_run()

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def begin_run(self) -> None:
        """Forgets what was kept for the run before: projected tokens and regions drawn on its grids."""
        self._run = CastRun(self.projections, self.carried, LayerEmphasis.UNIFORM, is_constant=True)

    def __call__(self, x: Tensor, context: Tensor, **inputs: Any) -> dict[str, list[Tensor]]:  # noqa: ANN401
        sides: tuple[int, ...] | None = inputs.pop(self.key, None)
        if sides is None:
            return self.model(x=x, context=context, **inputs)
        if self.replaces_text:
            nobody = self.carried[NEGATIVE].tokens[:1]
            context = nobody.expand(len(x), -1, -1).to(context)
        layers = cross_attention_layers(self.model)
        attach = partial(
            IdentityAttention, run=self._run, people=self._people(sides, x), layers=layers, combine=self._combine
        )
        stand_in = HandsOnOptions(self.model, claim_slots({}, layers, attach))
        return type(self.model).forward(stand_in, x=x, context=context, **inputs)

    @property
    def _combine(self) -> Callable[..., Tensor]:
        return replace_by_identities if self.replaces_text else add_identities

    def _people(self, sides: tuple[int, ...], x: Tensor) -> People:
        num_identities = len(self.carried[POSITIVE].tokens)
        rows = torch.tensor(sides)[:, None] * num_identities + torch.arange(num_identities)
        weights = self.carried[POSITIVE].weights(Extent(x.shape[-1], x.shape[-2]))
        if self.replaces_text:
            weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)  # nothing more than the text's place
        return self._run.people(rows, weights.repeat(len(x) // len(weights), 1, 1, 1), x)


class HandsOnOptions:
    """Stands in for a ControlNet's model in its own forward, and hands `transformer_options` on to its blocks."""

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        self._model = model
        self.input_blocks = [
            partial(block, transformer_options={**options, "block": ("input", number)})
            for number, block in enumerate(model.input_blocks)
        ]
        self.middle_block = partial(model.middle_block, transformer_options={**options, "block": ("middle", 0)})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._model, name)


class CastControlNet(ControlNet):
    """A ControlNet of the host whose model carries a cast; it shares the weights of the one that it is made from."""

    def __init__(self, source: ControlNet, control_model: CastControlModel) -> None:
        super().__init__(None, load_device=source.load_device, manual_cast_dtype=source.manual_cast_dtype)
        source.copy_to(self)
        self.control_model = control_model
        self.control_model_wrapped = source.control_model_wrapped
        if control_model.key not in self.extra_conds:
            self.extra_conds.append(control_model.key)  # the host hands these on to the model

    def pre_run(self, model: BaseModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self.control_model.begin_run()

    def cleanup(self) -> None:
        super().cleanup()
        self.control_model.begin_run()

    def copy(self) -> CastControlNet:
        return CastControlNet(self, replace(self.control_model))

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> CastControlNet:
        model = copy.deepcopy(self.control_model.model)
        clone = CastControlNet(self, replace(self.control_model, model=model))
        offload_device = self.control_model_wrapped.offload_device
        clone.control_model_wrapped = CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)
        if autoregister:
            self.multigpu_clones[load_device] = clone
        return clone


def control_model_of(control_net: ControlBase) -> nn.Module:
    """The model of a ControlNet of the SD1.5 or SDXL family.

    Raises:
        UnsupportedModeError: it is of another kind, or a pack has wrapped it.
    """
    model = getattr(control_net, "control_model", None)
    if type(control_net) is not ControlNet or not isinstance(model, comfy.cldm.cldm.ControlNet):
        raise UnsupportedModeError(
            f"the connected ControlNet is a {type(control_net).__name__} around a {type(model).__name__}; people can "
            "be put into ControlNets of SD1.5 and SDXL as Load ControlNet Model loads them, not into control-LoRAs, "
            "T2I-Adapters, ControlNets of other families or of other packs"
        )
    return model


def control_projections(adapter: IdentityAdapter, model: nn.Module) -> Mapping[BlockSlot, KeyValue] | None:
    """An adapter's own projections for the layers of a ControlNet; None: those of the layers themselves.

    Raises:
        BaseModelError: the adapter does not fit the ControlNet.
    """
    layers = cross_attention_layers(model)
    projections = None
    if adapter.projections is not None and not adapter.recipe.replaces_text:
        projections = {slot: adapter.projections[slot] for slot in layers if slot in adapter.projections}
    check_adapter_fits(replace(adapter, projections=projections), layers, "ControlNet")
    return projections
