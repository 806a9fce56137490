"""ComfyUI's CLIP-Vision and DINO models as encoders of whole pictures, for scores."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.clip_vision
import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInputError

CLIP, DINO = ("clip_vision_model",), ("dinov2", "dinov3")
"""The host's model types of the encoders of CLIP-I and CLIP-T, and of DINO."""


def embed_pictures(
    clip_vision: comfy.clip_vision.ClipVisionModel, pictures: Sequence[Tensor], *, kinds: Sequence[str]
) -> np.ndarray:
    """Returns one embedding for each picture: CLIP's projected one, or DINO's normalised class token.

    The host resizes the shorter side (bicubic) and takes the middle square, as the encoders' own processors do, except
    that DINOv2's enlarge before they crop.

    Args:
        clip_vision: the encoder.
        pictures: (height, width, 3) float in [0, 1], each of its own size.
        kinds: the model types that are welcome.
    Returns:
        (pictures, dim) float32, not normalised.
    Raises:
        InvalidInputError: the encoder is of another kind.
    """
    if clip_vision.model_type not in kinds:
        raise InvalidInputError(f"load a {' or '.join(kinds)} for this score; this encoder is {clip_vision.model_type}")
    with torch.no_grad():
        embedded = [clip_vision.encode_image(picture[None])["image_embeds"].float().cpu() for picture in pictures]
    return torch.cat(embedded).numpy()
