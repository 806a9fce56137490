"""ComfyUI's CLIP-Vision models as image encoders."""

from __future__ import annotations

import hashlib

import comfy.clip_vision
import comfy.model_management
import torch
from torch import Tensor

from ..errors import InvalidInputError

MODEL_TYPE = "clip_vision_model"
POSITIONS = "vision_model.embeddings.position_embedding.weight"


class ClipVisionEncoder:
    """Computes penultimate hidden states of a CLIP vision transformer, which IP-Adapter's models read.

    It is an `identity.encoding.ImageEncoder`. The host manages memory and devices, because the model is loaded through
    its own patcher.
    """

    def __init__(self, clip_vision: comfy.clip_vision.ClipVisionModel) -> None:
        if clip_vision.model_type != MODEL_TYPE:
            raise InvalidInputError(
                f"this CLIP-Vision model is a {clip_vision.model_type}, which no identity adapter reads; load CLIP's "
                "own vision model (CLIP-ViT-H-14-laion2B-s32B-b79K for most adapters)"
            )
        self._clip_vision = clip_vision
        self._key = clip_vision_key(clip_vision)

    @property
    def key(self) -> str:
        return self._key

    def hidden_states(self, image: Tensor) -> Tensor:
        """Returns penultimate hidden states of an image's middle square, which the host resizes and normalises.

        Args:
            image: (1, height, width, 3) float in [0, 1].
        Returns:
            (1, tokens, width) float32 on the CPU.
        """
        with torch.no_grad():
            return self._clip_vision.encode_image(image)["penultimate_hidden_states"].float().cpu()

    def null_hidden_states(self) -> Tensor:
        """Returns hidden states of an image that is zero after pixel normalisation, which stands for no picture.

        The host's preprocessing rounds to 8 bits, so no picture becomes exact zeros. The model is therefore called on
        the zeros directly.

        Returns:
            (1, tokens, width) float32 on the CPU.
        """
        clip_vision = self._clip_vision
        comfy.model_management.load_model_gpu(clip_vision.patcher)
        size = clip_vision.image_size
        zeros = torch.zeros(1, 3, size, size, device=clip_vision.load_device)
        with torch.no_grad():
            return clip_vision.model(pixel_values=zeros, intermediate_output=-2)[1].float().cpu()


def clip_vision_key(clip_vision: comfy.clip_vision.ClipVisionModel) -> str:
    """Names a CLIP-Vision model independently of its file: `clip-<width>x<tokens>-<16 hex digits>`.

    The digits are the first 16 of a SHA-256 over every tensor of the transformer, in the order of the names: its name,
    its shape, and its values if it has one dimension (biases, norms, the class token). Values count as float16, so that
    a model has the same key with weights in float16 and in float32. The key covers one million of the 630 million
    numbers of ViT-H, with some from every layer.

    Args:
        clip_vision: ComfyUI's model, with a class token.
    Returns:
        The key by which identities and adapters name the model.
    """
    digest = hashlib.sha256()
    tensors = {name: tensor for name, tensor in clip_vision.get_sd().items() if name.startswith("vision_model.")}
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        if tensor.ndim == 1:
            digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    tokens, width = tensors[POSITIONS].shape
    return f"clip-{width}x{tokens}-{digest.hexdigest()[:16]}"
