"""The report of a restoration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .crops import tilt_of, turn_of
from .face_crops import FaceCrop


@dataclass(frozen=True, eq=False, kw_only=True)
class RestoredFace:
    """The result of the restoration of one face.

    Attributes:
        crop: (size, size, 3) in [0, 1], on the CPU.
        before, after: FaceSim with the matched person, measured on the crop; None if it cannot be measured.
        num_tries: number of tries, of which this was the best.
        residual: the largest relative residual of the inversion over its steps.
    """

    crop: Tensor
    before: float | None
    after: float | None
    num_tries: int
    residual: float

    def is_below(self, facesim: float) -> bool:
        """Returns whether its FaceSim is known and lower."""
        return self.after is not None and self.after < facesim


@dataclass(frozen=True, eq=False)
class FaceOutcome:
    """The outcome for one face.

    Attributes:
        face: the face as it was cropped.
        restored: the pasted face; None if the face was left alone.
        name: the person whose face it became; None if it was restored without an identity.
        why_left_alone: the reason, if it was.
    """

    face: FaceCrop
    restored: RestoredFace | None = None
    name: str | None = None
    why_left_alone: str = ""

    def __str__(self) -> str:
        start = f"{self.face.label}, {self.face.face.size_px:.0f} px: "
        restored, match = self.restored, self.face.match
        if restored is None:
            return f"{start}left alone, {self.why_left_alone}"
        who = f"{self.name} ({match.reason})" if self.name and match else "restored without an identity"
        tries = f" (best of {restored.num_tries})" if restored.num_tries > 1 else ""
        is_measured = restored.before is not None or restored.after is not None
        facesim = f"{_figure(restored.before)} -> {_figure(restored.after)}{tries}" if is_measured else "not measured"
        return f"{start}{who}, FaceSim {facesim}, inversion residual {restored.residual:.2g}{self._tilt}"

    @property
    def _tilt(self) -> str:
        """How far the face is tilted, if it was turned or should have been."""
        tilt, turn = tilt_of(self.face.face), self.face.square.angle
        if tilt is None or (turn == 0 and turn_of(tilt) == 0):
            return ""
        return f", tilted by {math.degrees(tilt):.0f} degrees, {'turned upright' if turn else 'not turned'}"


def write_report(
    outcomes: Sequence[FaceOutcome],
    *,
    num_found: int,
    size_limit_px: float,
    background: float,
    remarks: Sequence[str] = (),
) -> str:
    """Writes the whole report.

    Args:
        outcomes: outcomes of the faces that were small enough.
        num_found: number of faces found, of any size.
        size_limit_px: the limit; 0 is no limit.
        background: the largest difference outside the masks.
        remarks: on settings that are not as they were set.
    """
    num_restored = sum(outcome.restored is not None for outcome in outcomes)
    small = f"; {len(outcomes)} under {size_limit_px:g} px" if size_limit_px else ""
    lines = [f"{num_restored} of {num_found} faces restored{small}"]
    if num_found == 0:
        lines = ["no face found, nothing changed"]
    elif not outcomes:
        why = f"is under {size_limit_px:g} px (size_limit_px 0 takes all)" if size_limit_px else "is in the picture"
        lines = [f"none of the {num_found} faces {why}, nothing changed"]
    lines += [*map(str, outcomes), *remarks]
    return "\n".join((*lines, f"background: maximum difference {background:g} outside the masks"))


def background_difference(before: Tensor, after: Tensor, changed: Tensor) -> float:
    """Returns the largest change outside the masks.

    Args:
        before, after: (num_pictures, height, width, channels).
        changed: (num_pictures, height, width), 0 outside.
    """
    same = (before == after) | (before.isnan() & after.isnan())
    difference = torch.where(same, 0.0, (after - before).abs().nan_to_num(float("inf")))
    return float(torch.where(changed[..., None] == 0, difference, 0.0).max())


def _figure(facesim: float | None) -> str:
    return "n/a" if facesim is None else f"{facesim:.3f}"
