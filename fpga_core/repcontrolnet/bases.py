"""Recognises the architecture of a UNet by the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

KNOWN_BASES: Mapping[tuple[int, bool], str] = {
    (768, False): "sd15",
    (1024, False): "sd21",
    (1280, True): "sdxl-refiner",
    (2048, True): "sdxl",
}
"""(width of the text embedding, whether the picture's size is embedded too) -> name."""


def recognise_base(shapes: Mapping[str, torch.Size]) -> str:
    """Names the base architecture of a UNet, or of a branch copied from one.

    Args:
        shapes: parameter names in ComfyUI's layout, without a prefix -> shapes.
    Returns:
        "sd15", "sd21", "sdxl" or "sdxl-refiner"; "unet-<text width>" for any other UNet; "unknown" if there is no
        cross-attention.
    """
    for name, shape in shapes.items():
        if name.endswith(".attn2.to_k.weight") and len(shape) == 2:
            return KNOWN_BASES.get((shape[1], "label_emb.0.0.weight" in shapes), f"unet-{shape[1]}")
    return "unknown"
