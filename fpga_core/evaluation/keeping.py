"""Keep Alike: which pictures of a batch are good enough, by one of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from ..errors import InvalidInputError, ShapeMismatchError
from .scores import LOWER_IS_BETTER, PictureScores, as_figure


class IfNone(str, Enum):
    """What is kept if no picture is good enough."""

    NOTHING = "nothing"
    BEST = "the best one"


@dataclass(frozen=True)
class Kept:
    """Which pictures are sent on, and which aside.

    Attributes:
        kept: indices, best first.
        aside: indices, in the order of the batch.
        has_fallen_back: whether the one that is kept is not good enough.
        bar: what a picture had to reach, in words.
        best: the best score, in words.
    """

    kept: tuple[int, ...]
    aside: tuple[int, ...]
    has_fallen_back: bool
    bar: str
    best: str

    def report(self) -> str:
        """Returns how many were kept, and which."""
        total = len(self.kept) + len(self.aside)
        chosen = f": {self.numbers}" if self.kept else ""
        return f"kept {len(self.kept)} of {total}{chosen}\n{self.bar}; the best has {self.best}"

    @property
    def numbers(self) -> str:
        """The numbers of the kept pictures in the batch, from 1, best first."""
        return ", ".join(str(index + 1) for index in self.kept)

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.has_fallen_back:
            return (f"no picture has {self.bar}; the best one is kept all the same, with {self.best}",)
        if not self.kept:
            return (f"no picture has {self.bar}, so nothing is sent on; the best has {self.best}",)
        return ()


def keep_alike(
    scores: PictureScores, name: str, *, threshold: float, at_most: int = 0, if_none: IfNone = IfNone.NOTHING
) -> Kept:
    """Chooses the pictures whose score is on the right side of a threshold.

    Args:
        scores: the scores of the batch.
        name: the score to choose by.
        threshold: the least that a picture needs; the most that it may have, if less is better.
        at_most: how many are kept, the best ones; 0 keeps all that are good enough.
        if_none: what is kept if none is good enough. A picture without the score is never good enough, and never best.
    Returns:
        The choice. Equal pictures stay in the order of the batch.
    Raises:
        InvalidInputError: that score was not measured, or `at_most` is negative.
    """
    if at_most < 0:
        raise InvalidInputError(f"keep at least one picture, or 0 for all that are good enough; {at_most} is less")
    values = scores.values(name)
    is_low = name in LOWER_IS_BETTER
    known = [index for index, value in enumerate(values) if value == value]
    ranked = sorted(known, key=lambda index: values[index], reverse=not is_low)
    good = [index for index in ranked if (values[index] <= threshold if is_low else values[index] >= threshold)]
    has_fallen_back = not good and bool(ranked) and if_none is IfNone.BEST
    kept = ranked[:1] if has_fallen_back else good[: at_most or None]
    return Kept(
        tuple(kept),
        _others(len(values), kept),
        has_fallen_back,
        f"{name} at {'most' if is_low else 'least'} {threshold:g}",
        as_figure(values[ranked[0]]) if ranked else "none",
    )


def split(images: Tensor, choice: Kept) -> tuple[Tensor | None, Tensor | None]:
    """Returns the pictures that are kept, best first, and those set aside; None in place of an empty batch.

    Args:
        images: (batch, height, width, channels), the pictures that were scored.
        choice: the result of `keep_alike`.
    Raises:
        ShapeMismatchError: there are not as many images as scored pictures.
    """
    total = len(choice.kept) + len(choice.aside)
    if len(images) != total:
        raise ShapeMismatchError(
            f"{total} pictures were scored, but there are {len(images)} to choose from; connect the same pictures"
        )
    kept, aside = (images[list(part)] if part else None for part in (choice.kept, choice.aside))
    return kept, aside


def _others(num: int, kept: Sequence[int]) -> tuple[int, ...]:
    return tuple(index for index in range(num) if index not in kept)
