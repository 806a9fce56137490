"""What a restoration did, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FaceOutcome:
    """How one face fared.

    Attributes:
        label: which face of which picture.
        size_px: longer side of its box.
        identity: whose face it became; None where it was restored without one, or left alone.
        reason: what spoke for that identity, or why the face was left alone.
        is_restored: whether the face was restored.
        before, after: FaceSim with that identity, measured on the crop; None where it cannot be measured.
        num_tries: restorations made, of which the best was kept.
        residual: largest relative residual of the inversion over its steps.
    """

    label: str
    size_px: float
    identity: str | None
    reason: str
    is_restored: bool
    before: float | None = None
    after: float | None = None
    num_tries: int = 0
    residual: float = 0.0

    def __str__(self) -> str:
        start = f"{self.label}, {self.size_px:.0f} px: "
        if not self.is_restored:
            return f"{start}left alone, {self.reason}"
        who = f"{self.identity} ({self.reason})" if self.identity else "restored without an identity"
        tries = f" (best of {self.num_tries})" if self.num_tries > 1 else ""
        is_measured = self.before is not None or self.after is not None
        facesim = f"{_figure(self.before)} -> {_figure(self.after)}{tries}" if is_measured else "not measured"
        return f"{start}{who}, FaceSim {facesim}, inversion residual {self.residual:.2g}"


def write_report(outcomes: Sequence[FaceOutcome], num_found: int, size_limit_px: float, background: float) -> str:
    """The whole report.

    Args:
        outcomes: of the faces that were small enough.
        num_found: faces found, of any size.
        size_limit_px: the limit; 0 = none.
        background: largest difference outside the masks.
    """
    num_restored = sum(outcome.is_restored for outcome in outcomes)
    small = f"; {len(outcomes)} under {size_limit_px:g} px" if size_limit_px else ""
    lines = [f"{num_restored} of {num_found} faces restored{small}"]
    if num_found == 0:
        lines = ["no face found, nothing changed"]
    elif not outcomes:
        why = f"is under {size_limit_px:g} px (size_limit_px 0 takes all)" if size_limit_px else "is in the picture"
        lines = [f"none of the {num_found} faces {why}, nothing changed"]
    lines += map(str, outcomes)
    return "\n".join((*lines, f"background: maximum difference {background:g} outside the masks"))


def background_difference(before: Tensor, after: Tensor, changed: Tensor) -> float:
    """The largest change outside the masks.

    Args:
        before, after: (num_pictures, height, width, channels).
        changed: (num_pictures, height, width), 0 outside.
    """
    same = (before == after) | (before.isnan() & after.isnan())
    difference = torch.where(same, 0.0, (after - before).abs().nan_to_num(float("inf")))
    return float(torch.where(changed[..., None] == 0, difference, 0.0).max())


def _figure(facesim: float | None) -> str:
    return "n/a" if facesim is None else f"{facesim:.3f}"
