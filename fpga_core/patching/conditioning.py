"""ComfyUI's conditioning, with the pack's additions: condition images, and tensors that the host batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.conds import CONDRegular
from comfy.controlnet import ControlBase
from torch import Tensor

from ..errors import InvalidInputError

Conditioning = list[list[Any]]
"""The value of a CONDITIONING socket: entries `[text, options]`."""


def add_cond(conditioning: Conditioning, key: str, cond: CONDRegular) -> Conditioning:
    """Returns the conditioning with `cond` added to each entry; the given entries are not changed."""

    def with_cond(options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "model_conds": {**options.get("model_conds", {}), key: cond}}

    return [[text, with_cond(options)] for text, options in conditioning]


def add_control(
    positive: Conditioning, negative: Conditioning, control: ControlBase
) -> tuple[Conditioning, Conditioning]:
    """Adds one shared control object to both conditionings. The host batches them only if it is the same object.

    Conditionings that already carry other controls keep them; each distinct chain gets its own copy in front.
    """
    by_previous: dict[object, ControlBase] = {}

    def controlled(options: Mapping[str, Any]) -> dict[str, Any]:
        previous = options.get("control")
        if previous not in by_previous:
            by_previous[previous] = control.copy().set_previous_controlnet(previous)
        return {**options, "control": by_previous[previous], "control_apply_to_uncond": False}

    def with_control(conditioning: Conditioning) -> Conditioning:
        return [[text, controlled(options)] for text, options in conditioning]

    return with_control(positive), with_control(negative)


def as_hint(image: Tensor) -> Tensor:
    """Converts a condition image to the form that controls read.

    Args:
        image: (num_images, height, width, 3 or 4) in [0, 1], the value of an IMAGE socket.
    Returns:
        (num_images, 3, height, width); a transparent picture's alpha is dropped.
    Raises:
        InvalidInputError: it has another shape, or is empty.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise InvalidInputError(
            f"the condition image has the shape {tuple(image.shape)}; connect an IMAGE of the shape (pictures, height, "
            "width, 3 or 4 channels)"
        )
    return image[..., :3].movedim(-1, 1)  # BHWC -> BCHW
