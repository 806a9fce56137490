"""ComfyUI's CLIP-Vision models as image encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import comfy.clip_model
import comfy.clip_vision
import comfy.model_management
import torch
from torch import Tensor

from ..errors import InvalidInputError

MODEL_TYPE = "clip_vision_model"
KEY_ATTACHMENT, NULL_ATTACHMENT = "fpga_key", "fpga_null_hidden_states"
"""The attachments that keep a model's key, and its hidden states of no picture: both are computed once a model."""

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
        key: str | None = clip_vision.patcher.get_attachment(KEY_ATTACHMENT)
        self._key = clip_vision_key(clip_vision) if key is None else key
        clip_vision.patcher.set_attachments(KEY_ATTACHMENT, self._key)

    @property
    def key(self) -> str:
        return self._key

    def hidden_states(self, images: Sequence[Tensor]) -> Tensor:
        """Returns penultimate hidden states of the middle squares of images, in one call of the model.

        The host resizes and normalises each image, as in its `encode_image`.

        Args:
            images: (1, height, width, 3) float in [0, 1], each of its own size.
        Returns:
            (images, tokens, width) float32 on the CPU.
        """
        seen, device = self._clip_vision, self._clip_vision.load_device
        squares = [
            comfy.clip_model.clip_preprocess(
                image.to(device), size=seen.image_size, mean=seen.image_mean, std=seen.image_std
            )
            for image in images
        ]
        return self._penultimate(torch.cat(squares).float())

    def null_hidden_states(self) -> Tensor:
        """Returns hidden states of an image that is zero after pixel normalisation, which stands for no picture.

        The host's preprocessing rounds to 8 bits, so no picture becomes exact zeros. The model is therefore called on
        the zeros directly, once.

        Returns:
            (1, tokens, width) float32 on the CPU.
        """
        patcher, size = self._clip_vision.patcher, self._clip_vision.image_size
        null: Tensor | None = patcher.get_attachment(NULL_ATTACHMENT)
        if null is None:
            null = self._penultimate(torch.zeros(1, 3, size, size, device=self._clip_vision.load_device))
            patcher.set_attachments(NULL_ATTACHMENT, null)
        return null

    def _penultimate(self, pixel_values: Tensor) -> Tensor:
        comfy.model_management.load_model_gpu(self._clip_vision.patcher)
        with torch.no_grad():
            return self._clip_vision.model(pixel_values=pixel_values, intermediate_output=-2)[1].float().cpu()


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
