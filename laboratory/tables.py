"""Tables of measures over pictures: means, standard errors, and differences picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Rows = Mapping[str, Sequence[Mapping[str, float]]]
"""For each row of a table, the measures of each picture."""
FACESIM, POSE_ERROR = "FaceSim", "pose error"
COMPARED = (FACESIM,)
"""The measures by which rows on the same pictures are compared."""


@dataclass(frozen=True)
class Spread:
    """A measure over many pictures."""

    mean: float
    error: float
    """The standard error of the mean."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        known = np.array([value for value in values if not np.isnan(value)])
        error = known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else float("nan")
        return cls(float(known.mean()) if len(known) else float("nan"), float(error))

    @property
    def is_positive(self) -> bool:
        """Whether the mean is above 0 by more than three standard errors."""
        return self.mean > 3 * self.error

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"

    def signed(self) -> str:
        return f"{self.mean:+.3f} ± {self.error:.3f}"


def paired(rows: Rows, name: str, reference: str, measure: str) -> Spread:
    """Returns how much one row exceeds another in a measure, picture by picture."""
    pairs = zip(rows[name], rows[reference], strict=True)
    return Spread.of([one[measure] - other[measure] for one, other in pairs])


def markdown(
    rows: Rows,
    *more: Callable[[str], Mapping[str, str]],
    references: Mapping[str, str] | None = None,
    compared: Sequence[str] = COMPARED,
) -> str:
    """Returns a Markdown table with means and standard errors, one line for each row.

    Args:
        rows: for each row's name, the measures of each picture.
        more: return further columns of a row, given its name.
        references: for each row's name, the row on the same pictures that it is compared with, picture by picture. Rows
            that are missing here are not compared.
        compared: the measures that are compared.
    """
    lines: list[list[str]] = []
    head: list[str] = []
    references = references or {}
    for name, pictures in rows.items():
        measured = {key: str(Spread.of([picture[key] for picture in pictures])) for key in pictures[0]}
        if references:
            other = references.get(name, name)
            measured |= {
                f"{key}, paired": "" if other == name else paired(rows, name, other, key).signed() for key in compared
            }
        for columns in more:
            measured |= columns(name)
        head = head or ["", *measured, "n"]
        lines.append([name, *measured.values(), str(len(pictures))])
    table = [head, ["---"] * len(head), *lines]
    text = "\n".join("| " + " | ".join(line) + " |" for line in table)
    if not references:
        return text
    names = ", ".join(f"*{name}*" for name in dict.fromkeys(references.values()))
    return f"{text}\n\nPaired: mean and standard error of the differences, picture by picture, to {names}."


def choosing(rows: Rows) -> Rows:
    """Returns every second picture: the half by which settings are chosen."""
    return {name: pictures[::2] for name, pictures in rows.items()}


def confirming(rows: Rows) -> Rows:
    """Returns the other half, by which the choice is reported."""
    return {name: pictures[1::2] for name, pictures in rows.items()}
