"""Identities in the cross attention of a ControlNet: the first form of Eq. 1, and InstantID's IdentityNet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.cldm.cldm
import torch
from comfy.controlnet import ControlBase, ControlNet
from comfy.model_base import BaseModel
from comfy.model_patcher import CoreModelPatcher
from torch import Tensor

from ...errors import UnsupportedModeError
from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast
from ..conditioning import Conditioning, add_cond, add_control, as_hint, check_text_width, window_frames
from ..schedule import StepRange
from ..unet import cross_attention_layers
from .attach import check_adapter_fits
from .conditioning import EncodedCast, new_cast_key
from .control_model import NEGATIVE, POSITIVE, CastControlModel, CastSide
from .encoding import encode_cast


def apply_cast_controlnet(
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlBase,
    *,
    adapter: IdentityAdapter,
    cast: Cast,
    image: Tensor,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> tuple[Conditioning, Conditioning]:
    """Applies a ControlNet whose cross attention reads each person of a cast in their own region.

    Args:
        positive: receives the ControlNet with the people.
        negative: receives the ControlNet with the adapter's negative tokens.
        control_net: any ControlNet of the SD1.5 or SDXL family that the host loaded; it is not changed.
        adapter: makes the tokens. Its own projections are those of the UNet blocks that the ControlNet copies. If it
            has none, those of the ControlNet are shared. InstantID's tokens take the place of the text.
        cast: the people and their regions; a member with strength 0 is absent.
        image: condition images, (num_images, height, width, 3) in [0, 1].
        strength: strength of the ControlNet; 0 does nothing.
        steps: the part of the schedule in which the ControlNet acts.
    Returns:
        The two conditionings; if nobody acts, with the plain ControlNet.
    Raises:
        UnsupportedModeError: the ControlNet has no such cross attention.
        BaseModelError: the adapter or a prompt does not fit the ControlNet.
        InvalidInputError: an identity does not hold what the adapter reads, or the image is not a picture.
    Source: FPGA Eq. 1 and section 3.1; InstantID section 3.
    """
    hint = as_hint(image)
    reading = IdentityControlNet.of(control_net, adapter)
    check_text_width(reading.text_width, positive, negative)
    encoded = encode_cast(adapter, cast, 1.0)
    if strength == 0:
        return positive, negative
    control = reading.control_net.copy()
    if encoded is not None:
        control, positive, negative = reading.with_cast(encoded, positive, negative)
    control.set_cond_hint(hint, strength, (steps.start_percent, steps.end_percent))
    return add_control(positive, negative, control)


@dataclass(frozen=True, eq=False)
class IdentityControlNet:
    """A ControlNet whose cross attention can read the identities of an adapter.

    Attributes:
        control_net: the ControlNet; it is not changed.
        model: the model that it runs.
        has_own_projections: whether the adapter's own projections are used; otherwise those of the layers are.
        replaces_text: whether the tokens take the place of the text.
    """

    control_net: ControlNet
    model: comfy.cldm.cldm.ControlNet
    has_own_projections: bool
    replaces_text: bool

    @property
    def text_width(self) -> int:
        """The width of the text that the ControlNet reads."""
        return next(iter(cross_attention_layers(self.model).values())).to_k.in_features

    @classmethod
    def of(cls, control_net: ControlBase, adapter: IdentityAdapter) -> IdentityControlNet:
        """Combines a ControlNet and an adapter.

        Raises:
            UnsupportedModeError: the ControlNet is not one for SD1.5 or SDXL, or a pack has wrapped it.
            BaseModelError: the adapter does not fit the ControlNet.
        """
        model = getattr(control_net, "control_model", None)
        if type(control_net) is not ControlNet or not isinstance(model, comfy.cldm.cldm.ControlNet):
            raise UnsupportedModeError(
                f"the connected ControlNet is a {type(control_net).__name__} around a {type(model).__name__}, but only "
                "ControlNets for SD1.5 and SDXL from Load ControlNet Model can carry a cast; control-LoRAs, "
                "T2I-Adapters, and ControlNets of other families or packs cannot"
            )
        layers = cross_attention_layers(model)
        projections, replaces_text = None, adapter.recipe.replaces_text
        if adapter.projections is not None and not replaces_text:
            projections = {slot: adapter.projections[slot] for slot in layers if slot in adapter.projections}
        check_adapter_fits(replace(adapter, projections=projections), layers, "ControlNet")
        return cls(control_net, model, projections is not None, replaces_text)

    def with_cast(
        self, encoded: tuple[EncodedCast, EncodedCast], positive: Conditioning, negative: Conditioning
    ) -> tuple[CastControlNet, Conditioning, Conditioning]:
        """Returns a copy of the ControlNet in which a cast acts, and conditionings marked as positive and negative.

        Args:
            encoded: what the positive and the negative carry.
            positive, negative: the conditionings; they are not changed.
        """
        key = new_cast_key()
        model = CastControlModel(
            model=self.model,
            key=key,
            encoded=encoded,
            has_own_projections=self.has_own_projections,
            replaces_text=self.replaces_text,
        )
        positive = add_cond(positive, key, CastSide((POSITIVE,)))
        return CastControlNet(self.control_net, model), positive, add_cond(negative, key, CastSide((NEGATIVE,)))


class CastControlNet(ControlNet):
    """A ControlNet of the host whose model carries a cast. It shares the weights of the original.

    Attributes:
        sub_idxs: the frames of a sliding window, which AnimateDiff-style packs write here; None outside of windows.
    """

    def __init__(self, source: ControlNet, control_model: CastControlModel) -> None:
        super().__init__(None, load_device=source.load_device, manual_cast_dtype=source.manual_cast_dtype)
        source.copy_to(self)
        self.control_model = control_model
        self.control_model_wrapped = source.control_model_wrapped
        self.sub_idxs: list[int] | None = None
        if control_model.key not in self.extra_conds:
            self.extra_conds.append(control_model.key)  # the host passes these on to the model

    def pre_run(self, model: BaseModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self.control_model.begin_run()

    def get_control(
        self,
        x_noisy: Tensor,
        t: Tensor,
        cond: dict[str, Any],
        batched_number: int,
        transformer_options: dict[str, Any],
    ) -> dict[str, list[Tensor | None]] | None:
        """Calls the host's with the condition images of the window's frames.

        The host keeps the images of the first window for all of them.
        """
        images = self.cond_hint_original
        frames = None if images is None else window_frames(self.sub_idxs, transformer_options, len(images))
        if images is None or frames is None:
            return super().get_control(x_noisy, t, cond, batched_number, transformer_options)
        self.cond_hint, self.cond_hint_original = None, images[frames]
        try:
            return super().get_control(x_noisy, t, cond, batched_number, transformer_options)
        finally:
            self.cond_hint, self.cond_hint_original = None, images

    def cleanup(self) -> None:
        super().cleanup()
        self.sub_idxs = None
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
