"""ComfyUI's autoencoder and text encoder, and a face analysis, as what training looks through."""

from __future__ import annotations

import comfy.sd
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...checkpoints import hash_state_dict
from ...errors import FaceNotFoundError, InvalidInputError, ShapeMismatchError, TrainingDataError
from ...faces.face import FaceAnalyzer
from ...identity.encoding import ImageEncoder, encode_photos
from ...shapes import PIXELS_PER_LATENT
from ..data.batch import EMBEDDING_DIM
from ..data.encoded_set import NO_CAPTION
from ..data.encodings import Encoding
from ..data.samples import TrainingSample

WITHOUT_EFFECT = ("logit_scale", "text_projection.weight")
"""Ends of the names of those weights of CLIP that only pooled outputs and likenesses depend on."""


class FaceEncoder:
    """What is known of a face: its embedding, stored or computed, and CLIP-Vision's features of it.

    Args:
        face_analysis: computes the embeddings that are not stored; None: all must be.
        clip_vision: None: no CLIP features.
        stored_recogniser: hash of the recogniser that stored embeddings come from.
    Raises:
        InvalidInputError: nobody is recognised, the stored embeddings come from another recogniser, or CLIP features
            are wanted without a face analysis.
    """

    def __init__(
        self, face_analysis: FaceAnalyzer | None, clip_vision: ImageEncoder | None, stored_recogniser: str | None
    ) -> None:
        given = None if face_analysis is None else face_analysis.recogniser
        recogniser = given or stored_recogniser
        if recogniser is None:
            raise InvalidInputError(
                "training an identity needs a recogniser: connect a face analysis, or store embeddings with the data "
                "and name their recogniser in dataset.json"
            )
        if given is not None and stored_recogniser is not None and given != stored_recogniser:
            raise InvalidInputError(
                f"the data's embeddings come from the recogniser {stored_recogniser[:12]}, the face analysis has "
                f"{given[:12]}; connect the one that they come from, or delete them"
            )
        if clip_vision is not None and face_analysis is None:
            raise InvalidInputError("CLIP-Vision sees each face aligned, which needs a face analysis: connect one too")
        self.recogniser = recogniser
        self.clip_vision = clip_vision
        self._face_analysis = face_analysis
        self.key = f"{recogniser} {'' if clip_vision is None else clip_vision.key}"

    def encode(self, sample: TrainingSample) -> Encoding:
        """See `SampleEncoder.encode_face`.

        Raises:
            TrainingDataError: the face is not found, or has no stored embedding where there is no face analysis.
        """
        stored = None if sample.embedding is None else torch.from_numpy(sample.embedding)
        if stored is not None and self.clip_vision is None:
            return {"embedding": stored}
        if self._face_analysis is None:
            raise TrainingDataError(
                f"sample '{sample.key}' has no embedding.npy, and there is no face analysis to compute it; connect one"
            )
        picture = torch.from_numpy(sample.face).float()[None] / 255
        try:
            identity = encode_photos([picture], self._face_analysis, self.clip_vision).identity
        except (FaceNotFoundError, InvalidInputError) as error:
            raise TrainingDataError(
                f"the face of sample '{sample.key}' cannot be encoded: {error}; crop it with more margin or leave the "
                "sample out"
            ) from error
        encoding = {"embedding": identity.embeddings[self.recogniser][0].float() if stored is None else stored}
        if self.clip_vision is not None:
            encoding["clip"] = identity.clip_hidden[self.clip_vision.key][0].float()
        return encoding


class ComfyEncoder:
    """A `SampleEncoder` by ComfyUI's models, which its memory management loads when they are needed.

    Args:
        model: whose latent format is used.
        clip: the text encoder.
        vae: the autoencoder.
        faces: None: no identity is trained, and embeddings are zero.
    """

    def __init__(self, model: ModelPatcher, clip: comfy.sd.CLIP, vae: comfy.sd.VAE, faces: FaceEncoder | None) -> None:
        self._latent_format = model.model.latent_format
        self._clip = clip
        self._vae = vae
        self._faces = faces
        self._num_tokens = self._encode_text(NO_CAPTION).shape[0]
        self.image_key = f"{hash_state_dict(vae.get_sd())} {type(self._latent_format).__name__}"
        self.text_key = text_encoder_key(clip)
        self.face_key = "" if faces is None else faces.key

    def encode_image(self, image: np.ndarray) -> Tensor:
        """See `SampleEncoder`.

        Raises:
            ShapeMismatchError: the autoencoder does not make eight pixels one.
        """
        with torch.no_grad():
            encoded = self._vae.encode(torch.from_numpy(image).float()[None] / 255)
            latents = self._latent_format.process_in(encoded)[0].float().cpu().clone()
        expected = tuple(side // PIXELS_PER_LATENT for side in image.shape[:2])
        if latents.shape[1:] != expected:
            raise ShapeMismatchError(
                f"the VAE makes latents of {tuple(latents.shape[1:])} of a picture of {image.shape[:2]}; SD1.5's make "
                f"{expected}: connect one of those"
            )
        return latents

    def encode_caption(self, caption: str) -> Tensor:
        """See `SampleEncoder`; of a caption that needs several windows of the text encoder, the first counts."""
        return self._encode_text(caption)[: self._num_tokens]

    def encode_face(self, sample: TrainingSample) -> Encoding:
        """See `FaceEncoder.encode`."""
        return {"embedding": torch.zeros(EMBEDDING_DIM)} if self._faces is None else self._faces.encode(sample)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures, (batch, height, width, 3) in [0, 1], of latents in the model's own scale."""
        with torch.no_grad():
            return self._vae.decode(self._latent_format.process_out(latents.float().cpu()))

    def _encode_text(self, text: str) -> Tensor:
        with torch.no_grad():
            return self._clip.encode_from_tokens(self._clip.tokenize(text))[0].float().cpu().clone()


def text_encoder_key(clip: comfy.sd.CLIP) -> str:
    """A name for what a text encoder makes of captions: of its weights, the layer that is read, and its patches.

    Weights that no caption's tokens depend on are left out: a checkpoint may lack them, and then they are whatever the
    memory held.

    Args:
        clip: ComfyUI's text encoder.
    """
    weights = clip.cond_stage_model.state_dict()
    read = {name: weight for name, weight in weights.items() if not name.endswith(WITHOUT_EFFECT)}
    patches = clip.patcher.patches_uuid if clip.patcher.patches else ""
    return f"{hash_state_dict(read)} {clip.layer_idx} {patches}"
