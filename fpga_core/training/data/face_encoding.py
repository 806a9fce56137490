"""The encodings of a face that an identity learns from: its embedding, and its CLIP-Vision features."""

from __future__ import annotations

import torch

from ...errors import FaceNotFoundError, InvalidInputError, TrainingDataError
from ...faces.face import FaceAnalyzer
from ...identity.encoding import ImageEncoder, encode_photos
from .encodings import Encoding
from .samples import TrainingSample


class FaceEncoder:
    """Encodes a face: its embedding, stored or computed, and its CLIP-Vision features.

    Args:
        face_analysis: computes the embeddings that are not stored; None: all embeddings are stored.
        clip_vision: None for no CLIP features.
        stored_recogniser: hash of the recogniser that stored embeddings come from.
    Raises:
        InvalidInputError: no recogniser is known, the stored embeddings come from another recogniser, or CLIP features
            are wanted without a face analysis.
    """

    def __init__(
        self,
        face_analysis: FaceAnalyzer | None,
        clip_vision: ImageEncoder | None,
        *,
        stored_recogniser: str | None,
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
                f"the embeddings in the data come from the recogniser {stored_recogniser[:12]}, but the face analysis "
                f"has {given[:12]}; connect the face analysis that made them, or delete them"
            )
        if clip_vision is not None and face_analysis is None:
            raise InvalidInputError("CLIP-Vision needs aligned faces, which come from a face analysis: connect one too")
        self.recogniser = recogniser
        self.clip_vision = clip_vision
        self._face_analysis = face_analysis
        self.key = f"{recogniser} {'' if clip_vision is None else clip_vision.key}"

    def encode(self, sample: TrainingSample) -> Encoding:
        """See `SampleEncoder.encode_face`.

        Raises:
            TrainingDataError: the face is not found, or has no stored embedding and there is no face analysis.
        """
        stored = None if sample.embedding is None else torch.as_tensor(sample.embedding)
        if stored is not None and self.clip_vision is None:
            return {"embedding": stored}
        if self._face_analysis is None:
            raise TrainingDataError(
                f"sample '{sample.key}' has no embedding.npy, and there is no face analysis to compute it; connect a "
                "face analysis"
            )
        picture = torch.as_tensor(sample.face).float()[None] / 255
        try:
            identity = encode_photos([picture], self._face_analysis, self.clip_vision).identity
        except (FaceNotFoundError, InvalidInputError) as error:
            raise TrainingDataError(
                f"the face of sample '{sample.key}' cannot be encoded: {error}; crop it with more margin, or leave the "
                "sample out"
            ) from error
        encoding = {"embedding": identity.embeddings[self.recogniser][0].float() if stored is None else stored}
        if self.clip_vision is not None:
            encoding["clip"] = identity.clip_hidden[self.clip_vision.key][0].float()
        return encoding
