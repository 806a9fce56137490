"""The curriculum: what a network is shown in training, and what it has to learn."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InvalidInputError
from .clone_face import CloneFaceTuning
from .fusion import Drops, MultiModeFusion


@dataclass(frozen=True)
class Curriculum:
    """What a network is shown in training, and what it has to learn.

    Attributes:
        fusion: the stages of training.
        clone_face: Clone Face Tuning, in the iterations for which `fusion` asks for it.
        drops: how often text and identity are dropped.
        face_weight: what a face adds to the weight of 1 that every latent pixel has in the denoising loss. Faces are a
            small part of most pictures, and with a weight the model learns more about them. 0 is the paper's loss.
        min_snr_gamma: the gamma of min-SNR weighting, see `NoiseSchedule.min_snr_weights`; 0 is the paper's loss.
    Raises:
        InvalidInputError: a weight is negative.
    """

    fusion: MultiModeFusion = MultiModeFusion()
    clone_face: CloneFaceTuning = CloneFaceTuning()
    drops: Drops = Drops()
    face_weight: float = 0.0
    min_snr_gamma: float = 0.0

    def __post_init__(self) -> None:
        if not self.face_weight >= 0:
            raise InvalidInputError(
                f"faces have the extra weight {self.face_weight:g} in the loss; give 0 for none, or more"
            )
        if not self.min_snr_gamma >= 0:
            raise InvalidInputError(f"the gamma of min-SNR weighting is {self.min_snr_gamma:g}; give 5, or 0 for none")
