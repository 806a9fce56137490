"""ComfyUI's conditioning: what the pack adds to it for the host to batch, and what it leaves out of it in crops."""

from __future__ import annotations

from typing import Any

from comfy.conds import CONDRegular
from comfy.controlnet import ControlBase
from torch import Tensor

from ..errors import InvalidInputError
from .cast.conditioning import is_cast_key

Conditioning = list[list[Any]]
"""The value of a CONDITIONING socket: entries `[text, options]`."""

WHOLE_PICTURE_OPTIONS = frozenset(
    {
        "area",
        "concat_latent_image",
        "concat_mask",
        "control",
        "control_apply_to_uncond",
        "gligen",
        "mask",
        "mask_strength",
        "noise_mask",
        "reference_latents",
        "set_area_to_bounds",
        "strength",
    }
)
"""Entries of a conditioning that are tied to places in the picture, and would act at the wrong place in a crop."""


def add_cond(conditioning: Conditioning, key: str, cond: CONDRegular) -> Conditioning:
    """Returns the conditioning with `cond` added to each entry; the given entries are not changed."""
    return [
        [text, {**options, "model_conds": {**options.get("model_conds", {}), key: cond}}]
        for text, options in conditioning
    ]


def add_control(
    positive: Conditioning, negative: Conditioning, control: ControlBase
) -> tuple[Conditioning, Conditioning]:
    """Adds one shared control object to both conditionings. The host batches them only if it is the same object.

    Conditionings that already carry other controls keep them; each distinct chain gets its own copy in front.
    """
    chains = {options.get("control") for _, options in (*positive, *negative)}
    copies = {previous: control.copy().set_previous_controlnet(previous) for previous in chains}

    def with_control(conditioning: Conditioning) -> Conditioning:
        return [
            [text, {**options, "control": copies[options.get("control")], "control_apply_to_uncond": False}]
            for text, options in conditioning
        ]

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


def for_crops(conditioning: Conditioning) -> Conditioning:
    """Returns a picture's conditioning without what is tied to places in the picture.

    Prompts that are limited to an area or a mask are left out, unless there are no others.

    Args:
        conditioning: the conditioning of the whole picture; it is not changed.
    """
    everywhere = [entry for entry in conditioning if "area" not in entry[1] and "mask" not in entry[1]]
    left: Conditioning = []
    for text, options in everywhere or conditioning:
        kept = {name: value for name, value in options.items() if name not in WHOLE_PICTURE_OPTIONS}
        if "model_conds" in kept:
            conds = kept["model_conds"].items()
            kept["model_conds"] = {name: value for name, value in conds if not is_cast_key(name)}
        left.append([text, kept])
    return left


def without_words(conditioning: Conditioning) -> Conditioning:
    """Returns a conditioning that says nothing, as the host's Conditioning Zero Out makes it."""
    silent: Conditioning = []
    for text, options in conditioning[:1]:
        pooled = options.get("pooled_output")
        silent.append([text * 0, dict(options) if pooled is None else {**options, "pooled_output": pooled * 0}])
    return silent
