"""ComfyUI's conditioning: what the pack adds to it for the host to batch, and what it leaves out of it in crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.conds import CONDRegular
from comfy.controlnet import ControlBase, ControlLora
from torch import Tensor

from ..errors import BaseModelError, InvalidInputError, ShapeMismatchError
from ..shapes import Extent
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

MIN_HINT_PX = 8
"""The shorter side of the smallest condition image. The host crops it to the shape of the latent."""


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


def check_text_width(unet_width: int, *conditionings: Conditioning) -> None:
    """Raises unless prompts are as wide as the text that a network reads.

    Args:
        unet_width: width of the network's context.
        conditionings: prompts.
    Raises:
        BaseModelError: a prompt was encoded for another architecture.
    """
    for text, _ in (entry for conditioning in conditionings for entry in conditioning):
        if isinstance(text, Tensor) and text.shape[-1] != unet_width:
            raise BaseModelError(
                f"a prompt is {text.shape[-1]} wide, but the model reads text that is {unet_width} wide (SD1.5: 768, "
                "SD2: 1024, SDXL: 2048); encode the prompts with the CLIP of the connected model's checkpoint"
            )


def check_latent(latent: Tensor, num_channels: int) -> None:
    """Raises unless a model can sample a latent.

    Args:
        latent: (batch, channels, height, width).
        num_channels: what the model samples.
    Raises:
        InvalidInputError: it is empty, or has other channels.
    """
    if latent.ndim != 4 or 0 in latent.shape or latent.shape[1] != num_channels:
        raise InvalidInputError(
            f"the latent has the shape {tuple(latent.shape)}, but this model samples (pictures, {num_channels}, "
            "height, width); make it with an Empty Latent Image or a VAE of the model's architecture"
        )


def check_areas(conds: Mapping[str, list[dict[str, Any]]]) -> None:
    """Raises if a prompt is confined to an area without width or height.

    Args:
        conds: a guider's conditioning, entries by name; an area is (height, width, ...) in latent pixels, or
            ("percentage", height, width, ...).
    Raises:
        InvalidInputError: an area is empty.
    """
    for area in (entry.get("area") for entries in conds.values() for entry in entries):
        sides = () if area is None else area[1:3] if area[0] == "percentage" else area[: len(area) // 2]
        if any(side <= 0 for side in sides):
            raise InvalidInputError(
                "a prompt is confined to an area without width or height; set both above 0 in the node that sets the "
                "area (one latent pixel is 8 pixels)"
            )


def check_whole_picture(conds: Mapping[str, list[dict[str, Any]]], latent: Extent) -> None:
    """Raises if a prompt is confined to a part of the picture.

    Args:
        conds: a guider's conditioning; an area is (height, width, ...) in latent pixels.
        latent: size of the latent.
    Raises:
        ShapeMismatchError: it is.
    """
    whole = (latent.height, latent.width)
    for area in (entry.get("area") for entries in conds.values() for entry in entries):
        if area is not None and tuple(area[: len(area) // 2][-2:]) != whole:
            raise ShapeMismatchError(
                f"remove areas from the conditioning: a prompt is confined to {area[1]}x{area[0]} of {latent} latent "
                "pixels, and features of a part of the picture cannot be fused"
            )


def reads_base_weights(options: Mapping[str, Any]) -> bool:
    """Returns whether a conditioning's entry carries a control that copies the weights of the sampled model.

    Of the host's controls, only control-LoRAs do: they are differences from the base.
    """
    control = options.get("control")
    while control is not None:
        if isinstance(control, ControlLora):
            return True
        control = control.previous_controlnet
    return False


def window_frames(
    sub_idxs: list[int] | None, transformer_options: Mapping[str, Any], num_images: int
) -> list[int] | None:
    """Returns which condition images belong to the frames of a sliding window, one each.

    Args:
        sub_idxs: the window's frames, as AnimateDiff-style packs write them to a control.
        transformer_options: options of the call, in which the host's own context windows name theirs.
        num_images: the number of condition images; if there are fewer than frames, they start again.
    Returns:
        Positions of images; None if the call is for all frames, or one image serves them all.
    """
    frames, window = sub_idxs, transformer_options.get("context_window")
    if frames is None and window is not None and window.dim == 0:
        anchor = getattr(window, "causal_anchor_index", None)  # a frame from before the window, put in front of it
        frames = [*(() if anchor is None else (anchor,)), *window.index_list]
    return None if frames is None or num_images == 1 else [frame % num_images for frame in frames]


def as_hint(image: Tensor) -> Tensor:
    """Converts a condition image to the form that controls read.

    Args:
        image: (num_images, height, width, 3 or 4) in [0, 1], the value of an IMAGE socket.
    Returns:
        (num_images, 3, height, width); a transparent picture's alpha is dropped.
    Raises:
        InvalidInputError: it has another shape, is empty, or too thin to show anything.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise InvalidInputError(
            f"the condition image has the shape {tuple(image.shape)}; connect an IMAGE of the shape (pictures, height, "
            "width, 3 or 4 channels)"
        )
    height, width = image.shape[1:3]
    if min(height, width) < MIN_HINT_PX:
        raise InvalidInputError(
            f"the condition image is {width}x{height} pixels, which is too thin to show anything (at least "
            f"{MIN_HINT_PX} each way); connect a picture of the shape that is generated"
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
