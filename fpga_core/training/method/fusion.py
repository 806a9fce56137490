"""Multi-Mode Fusion: what the condition image shows in each stage of training, and what is dropped at random."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import Enum

import torch
from torch import Tensor

from ...errors import InvalidInputError
from ..data.batch import TrainingBatch


class Shown(str, Enum):
    """What a condition image shows."""

    LANDMARKS = "landmarks"
    SKELETON = "skeleton"
    BOTH = "both"


@dataclass(frozen=True)
class MultiModeFusion:
    """The stages of training, one after the other. The last one goes on for as long as training does.

    Attributes:
        num_landmarks: iterations that show face landmarks.
        num_skeleton: iterations that show the skeleton.
        num_both: iterations that show both in one picture.
        clone_every: Clone Face Tuning runs once in this many iterations of the last stage; 0 is never.
        single_share: share of the last stage's pictures that show the landmarks alone, and equal share of those that
            show the skeleton alone, so that neither is forgotten; at 0, every picture shows both, as in the paper.
    Raises:
        InvalidInputError: a number is negative, or no stage has an iteration.
    Source: FPGA section 4.1.
    """

    num_landmarks: int = 50_000
    num_skeleton: int = 100_000
    num_both: int = 1_000_000
    _: KW_ONLY
    clone_every: int = 10
    single_share: float = 0.0

    def __post_init__(self) -> None:
        if min(self.num_landmarks, self.num_skeleton, self.num_both, self.clone_every) < 0 or not self.num_iterations:
            raise InvalidInputError(
                f"the stages of training are {self.num_landmarks}, {self.num_skeleton} and {self.num_both} iterations "
                f"long, with Clone Face Tuning every {self.clone_every}; no number can be negative, and at least one "
                "stage needs a length"
            )
        if not 0 <= self.single_share <= 0.5:
            raise InvalidInputError(
                f"landmarks alone and skeletons alone would each be shown in {self.single_share:g} of the last stage's "
                "pictures; the share must be between 0 and 0.5"
            )

    @property
    def num_iterations(self) -> int:
        """The length of all stages together."""
        return self.num_landmarks + self.num_skeleton + self.num_both

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions for a RepControlNet's header, in the order in which they are drawn."""
        skeleton = (Shown.SKELETON.value,) if self.num_skeleton or self.num_both else ()
        landmarks = (Shown.LANDMARKS.value,) if self.num_landmarks or self.num_both else ()
        return skeleton + landmarks

    def shown_at(self, iteration: int) -> Shown:
        """Returns what the condition image shows in an iteration, counted from 0."""
        iteration = min(iteration, self.num_iterations - 1)
        if iteration < self.num_landmarks:
            return Shown.LANDMARKS
        return Shown.SKELETON if iteration < self.num_landmarks + self.num_skeleton else Shown.BOTH

    def left_out_at(self, iteration: int, num: int, generator: torch.Generator) -> Tensor | None:
        """Returns which skeletons and landmarks are left out of the images: (num, 2) bool; None if none are."""
        if self.single_share == 0 or self.shown_at(iteration) is not Shown.BOTH:
            return None
        chance = torch.rand(num, generator=generator, device=generator.device)
        without_skeleton = chance < self.single_share
        return torch.stack([without_skeleton, ~without_skeleton & (chance < 2 * self.single_share)], dim=1)

    def clones_at(self, iteration: int) -> bool:
        """Returns whether an iteration (from 0) runs Clone Face Tuning. The 10th of the last stage is the first."""
        number = iteration - self.num_landmarks - self.num_skeleton + 1
        return self.shown_at(iteration) is Shown.BOTH and self.clone_every > 0 and number % self.clone_every == 0


def condition_image(batch: TrainingBatch, shown: Shown, left_out: Tensor | None = None) -> Tensor:
    """Draws the condition image of each picture in a batch.

    Both in one picture look as in Draw Landmarks: the face is over the body. The coverage of a drawn point is that of
    its brightest channel, which is exact for the dots of OpenPose and InstantID.

    Args:
        batch: the drawings come from here.
        shown: what the images show.
        left_out: whether skeleton and landmarks of each picture are left out, if both are shown; (batch, 2) bool.
    Returns:
        (batch, 3, 8 height, 8 width) in [0, 1].
    Source: FPGA section 4.1.
    """
    if shown is Shown.LANDMARKS:
        return batch.landmarks
    if shown is Shown.SKELETON:
        return batch.skeleton
    skeleton, landmarks = batch.skeleton, batch.landmarks
    if left_out is not None:
        kept = (~left_out.to(batch.device))[..., None, None, None].to(skeleton)  # (batch, 2, 1, 1, 1)
        skeleton, landmarks = skeleton * kept[:, 0], landmarks * kept[:, 1]
    return skeleton * (1 - landmarks.amax(dim=1, keepdim=True)) + landmarks


@dataclass(frozen=True)
class Drops:
    """How often text and identity are dropped, so that a network learns what classifier-free guidance needs.

    Attributes:
        text: share of captions that are replaced by the empty one.
        identity: share of identities that are replaced by nobody.
    Raises:
        InvalidInputError: a share is not between 0 and 0.5.
    Source: FPGA section 4.1 for the text. Guidance leaves out both at once, so half of the drops coincide, as in
        IP-Adapter's training (5% text, 5% identity, 5% both). Each share stays as given.
    """

    text: float = 0.1
    identity: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.text <= 0.5 and 0 <= self.identity <= 0.5):
            raise InvalidInputError(
                f"text is dropped in {self.text:g} and identity in {self.identity:g} of all cases; the shares must be "
                "between 0 and 0.5 (the paper uses 0.1)"
            )

    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws whose text and whose identity are dropped; both are (num,) bool on the generator's device."""
        chance = torch.rand(num, generator=generator, device=generator.device)
        start = self.text - min(self.text, self.identity) / 2
        return chance < self.text, (chance >= start) & (chance < start + self.identity)
