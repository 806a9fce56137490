"""ComfyUI's autoencoder and text encoder, which make a sample what a network sees."""

from __future__ import annotations

import comfy.sd
import numpy as np
import torch
from comfy.model_base import SDXL
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...checkpoints import hash_state_dict
from ...errors import ShapeMismatchError
from ...shapes import PIXELS_PER_LATENT
from ..data.batch import EMBEDDING_DIM
from ..data.encoded_set import NO_CAPTION
from ..data.encodings import Encoding
from ..data.face_encoding import FaceEncoder
from ..data.samples import TrainingSample

WITHOUT_EFFECT = ("logit_scale", "text_projection.weight")
"""Suffixes of the names of CLIP's weights that affect only pooled outputs and similarities."""

POOLING = "clip_g.transformer.text_projection.weight"
"""What SDXL's pooled text is projected by."""


class ComfyEncoder:
    """A `SampleEncoder` on ComfyUI's models, which its memory management loads when they are needed.

    Args:
        model: the model whose latent format is used.
        clip: the text encoder.
        vae: the autoencoder.
        faces: None if no identity is trained; embeddings are then zero.
    """

    def __init__(
        self, model: ModelPatcher, clip: comfy.sd.CLIP, vae: comfy.sd.VAE, *, faces: FaceEncoder | None
    ) -> None:
        self._latent_format = model.model.latent_format
        self._clip = clip
        self._vae = vae
        self._faces = faces
        self._reads_pooled = isinstance(model.model, SDXL)
        self._last = (NO_CAPTION, *self._encode_text(NO_CAPTION))
        self._num_tokens = self._last[1].shape[0]
        self.image_key = f"{hash_state_dict(vae.get_sd())} {type(self._latent_format).__name__}"
        self.text_key = text_encoder_key(clip, reads_pooled=self._reads_pooled)
        self.face_key = "" if faces is None else faces.key

    def encode_image(self, image: np.ndarray) -> Tensor:
        """See `SampleEncoder`.

        Raises:
            ShapeMismatchError: the autoencoder does not reduce pictures eight times.
        """
        with torch.no_grad():
            encoded = self._vae.encode(torch.as_tensor(image).float()[None] / 255)
            latents = self._latent_format.process_in(encoded)[0].float().cpu().clone()
        expected = tuple(side // PIXELS_PER_LATENT for side in image.shape[:2])
        if latents.shape[1:] != expected:
            raise ShapeMismatchError(
                f"the VAE turns a {image.shape[:2]} picture into latents of {tuple(latents.shape[1:])}, but training "
                f"needs {expected}; connect the VAE of SD1.5 or SDXL"
            )
        return latents

    def encode_caption(self, caption: str) -> Tensor:
        """See `SampleEncoder`. A caption that needs several windows of the text encoder is cut to the first."""
        return self._encoded(caption)[0][: self._num_tokens]

    def encode_pooled(self, caption: str) -> Tensor | None:
        """See `SampleEncoder`."""
        return self._encoded(caption)[1] if self._reads_pooled else None

    def encode_face(self, sample: TrainingSample) -> Encoding:
        """See `FaceEncoder.encode`."""
        return {"embedding": torch.zeros(EMBEDDING_DIM)} if self._faces is None else self._faces.encode(sample)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decodes latents in the model's own scale to pictures, (batch, height, width, 3) in [0, 1]."""
        with torch.no_grad():
            return self._vae.decode(self._latent_format.process_out(latents.float().cpu()))

    def _encoded(self, caption: str) -> tuple[Tensor, Tensor]:
        if self._last[0] != caption:
            self._last = (caption, *self._encode_text(caption))
        return self._last[1:]

    def _encode_text(self, text: str) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            encoded, pooled = self._clip.encode_from_tokens(self._clip.tokenize(text), return_pooled=True)
        return encoded[0].float().cpu().clone(), pooled[0].float().cpu().clone()


def text_encoder_key(clip: comfy.sd.CLIP, *, reads_pooled: bool = False) -> str:
    """Returns a name for a text encoder's output, from its weights, the layer that is read, and its patches.

    Weights that do not affect a caption's tokens are left out: a checkpoint may lack them, and then they are whatever
    the memory held.

    Args:
        clip: ComfyUI's text encoder.
        reads_pooled: whether the pooled output counts too, which SDXL takes from CLIP-G.
    """
    weights = clip.cond_stage_model.state_dict()
    pooling = POOLING if reads_pooled else ""
    read = {n: weight for n, weight in weights.items() if n == pooling or not n.endswith(WITHOUT_EFFECT)}
    patches = clip.patcher.patches_uuid if clip.patcher.patches else ""
    return f"{hash_state_dict(read)} {clip.layer_idx} {patches}"
