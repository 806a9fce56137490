"""Multi-Mode Fusion: what the condition image shows in each stage of training, and what is left out at random."""

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
        clone_every: Clone Face Tuning happens in one iteration of the last stage out of so many; 0 = never.
        single_share: share of the last stage's pictures that show the landmarks alone, and as large a one that shows
            the skeleton alone, so that neither is forgotten; 0 = every picture shows both, as in the paper.
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
                f"long, with Clone Face Tuning every {self.clone_every}; give numbers from 0, and one stage a length"
            )
        if not 0 <= self.single_share <= 0.5:
            raise InvalidInputError(
                f"landmarks alone and skeletons alone are to be shown in {self.single_share:g} of the last stage's "
                "pictures each; give a share between 0 and 0.5"
            )

    @property
    def num_iterations(self) -> int:
        """Length of all stages together."""
        return self.num_landmarks + self.num_skeleton + self.num_both

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the trained network understands, in the order in which it is drawn: a RepControlNet's header."""
        skeleton = (Shown.SKELETON.value,) if self.num_skeleton or self.num_both else ()
        landmarks = (Shown.LANDMARKS.value,) if self.num_landmarks or self.num_both else ()
        return skeleton + landmarks

    def shown_at(self, iteration: int) -> Shown:
        """What the condition image shows in an iteration, counted from 0."""
        iteration = min(iteration, self.num_iterations - 1)
        if iteration < self.num_landmarks:
            return Shown.LANDMARKS
        return Shown.SKELETON if iteration < self.num_landmarks + self.num_skeleton else Shown.BOTH

    def left_out_at(self, iteration: int, num: int, generator: torch.Generator) -> Tensor | None:
        """Whose skeleton and whose landmarks are left out of the condition image: (num, 2) bool, or None: nobody's."""
        if self.single_share == 0 or self.shown_at(iteration) is not Shown.BOTH:
            return None
        chance = torch.rand(num, generator=generator, device=generator.device)
        without_skeleton = chance < self.single_share
        return torch.stack([without_skeleton, ~without_skeleton & (chance < 2 * self.single_share)], dim=1)

    def clones_at(self, iteration: int) -> bool:
        """Whether an iteration, counted from 0, does Clone Face Tuning: the 10th of the last stage is the first."""
        number = iteration - self.num_landmarks - self.num_skeleton + 1
        return self.shown_at(iteration) is Shown.BOTH and self.clone_every > 0 and number % self.clone_every == 0


def condition_image(batch: TrainingBatch, shown: Shown, left_out: Tensor | None = None) -> Tensor:
    """The condition image of each picture of a batch.

    Both in one picture is as Draw Landmarks draws it: the face over the body. How much a drawn point covers is read off
    its brightest channel, which is exact for the dots of OpenPose and of InstantID.

    Args:
        batch: its drawings are used.
        shown: what the images show.
        left_out: the pictures whose skeleton and landmarks are left out, if both are shown; (batch, 2) bool.
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
    """How often text and identity are left out, so that a network learns what classifier-free guidance compares with.

    Attributes:
        text: share of captions that are replaced by the empty one.
        identity: share of identities that are replaced by nobody.
    Raises:
        InvalidInputError: a share is not between 0 and 0.5.
    Source: FPGA section 4.1 for the text. Guidance leaves out both at once, so half of the drops coincide, as in
        IP-Adapter's training (5% text, 5% identity, 5% both); each share remains what it says.
    """

    text: float = 0.1
    identity: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.text <= 0.5 and 0 <= self.identity <= 0.5):
            raise InvalidInputError(
                f"text is dropped in {self.text:g} and identity in {self.identity:g} of all cases; give shares between "
                "0 and 0.5, 0.1 is the paper's"
            )

    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Whose text and whose identity are dropped, both (num,) bool on the generator's device."""
        chance = torch.rand(num, generator=generator, device=generator.device)
        start = self.text - min(self.text, self.identity) / 2
        return chance < self.text, (chance >= start) & (chance < start + self.identity)
