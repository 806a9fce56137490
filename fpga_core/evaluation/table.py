"""Tables of measures over pictures: means, standard errors, and differences picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Rows = Mapping[str, Sequence[Mapping[str, float]]]
"""For each row of a table, the measures of each picture. A measure that a picture does not have is NaN."""
FACESIM = "FaceSim"


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

    def is_above(self, num_errors: float) -> bool:
        """Whether the mean is above 0 by more than some standard errors."""
        return self.mean > num_errors * self.error

    def __str__(self) -> str:
        """The mean and its error; `0` says that every single value is 0."""
        return "0" if self.mean == self.error == 0 else f"{self.mean:.3f} ± {self.error:.3f}"

    def signed(self) -> str:
        """The mean with its sign, and its error."""
        return "0" if self.mean == self.error == 0 else f"{self.mean:+.3f} ± {self.error:.3f}"


def paired(rows: Rows, name: str, reference: str, *, measure: str) -> Spread:
    """Returns how much one row exceeds another in a measure, picture by picture."""
    pairs = zip(rows[name], rows[reference], strict=True)
    return Spread.of([one[measure] - other[measure] for one, other in pairs])


def share_of(rows: Rows, name: str, ceiling: str, *, measure: str) -> Spread:
    """Returns a row's mean as a fraction of another row's, on the same pictures.

    The standard error is that of the ratio of two paired means, to the first order.
    """
    pairs = zip(rows[name], rows[ceiling], strict=True)
    ours, theirs = zip(*[(one[measure], other[measure]) for one, other in pairs], strict=True)
    most = Spread.of(theirs).mean
    share = Spread.of(ours).mean / most
    differences = [one - share * other for one, other in zip(ours, theirs, strict=True)]
    return Spread(share, Spread.of(differences).error / abs(most))


def markdown(
    rows: Rows,
    *more: Callable[[str], Mapping[str, str]],
    references: Mapping[str, str] | None = None,
    ceilings: Mapping[str, str] | None = None,
    compared: Sequence[str] = (FACESIM,),
) -> str:
    """Returns a Markdown table with means and standard errors, one line for each row.

    Args:
        rows: for each row's name, the measures of each picture.
        more: return further columns of a row, given its name.
        references: for each row's name, the row on the same pictures that it is compared with, picture by picture. Rows
            that are missing here are not compared.
        ceilings: for each row's name, the row on the same pictures whose FaceSim is the most that can be reached.
        compared: the measures that are compared.
    """
    lines: list[list[str]] = []
    head: list[str] = []
    references = references or {}
    for name, pictures in rows.items():
        measured = {key: str(Spread.of([picture[key] for picture in pictures])) for key in pictures[0]}
        if ceilings:
            most = ceilings.get(name, name)
            measured["of the ceiling"] = (
                "" if most == name else f"{share_of(rows, name, most, measure=FACESIM).mean:.2f}"
            )
        if references:
            other = references.get(name, name)
            measured |= {
                f"{key}, paired": "" if other == name else paired(rows, name, other, measure=key).signed()
                for key in compared
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
