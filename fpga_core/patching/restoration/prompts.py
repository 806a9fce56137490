"""The prompt of a picture for its crops, without what is tied to places in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..cast.conditioning import is_cast_key
from ..conditioning import Conditioning

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


def for_crops(conditioning: Conditioning) -> Conditioning:
    """Returns a picture's conditioning without what is tied to places in the picture.

    Prompts that are limited to an area or a mask are left out, unless there are no others.

    Args:
        conditioning: the conditioning of the whole picture; it is not changed.
    """
    everywhere = [entry for entry in conditioning if "area" not in entry[1] and "mask" not in entry[1]]
    return [[text, _without_places(options)] for text, options in everywhere or conditioning]


def without_words(conditioning: Conditioning) -> Conditioning:
    """A conditioning that says nothing, as the host's Conditioning Zero Out makes it."""
    return [[text * 0, _silent(options)] for text, options in conditioning[:1]]


def _silent(options: Mapping[str, Any]) -> dict[str, Any]:
    pooled = options.get("pooled_output")
    return dict(options) if pooled is None else {**options, "pooled_output": pooled * 0}


def _without_places(options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in options.items() if name not in WHOLE_PICTURE_OPTIONS}
    if "model_conds" in kept:
        conds = kept["model_conds"].items()
        kept["model_conds"] = {name: value for name, value in conds if not is_cast_key(name)}
    return kept
