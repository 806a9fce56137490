"""What a build left out and what it kept: tables for the terminal, and a page with the same as pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ...fpga_core.boundaries import written_whole
from ...fpga_core.errors import TrainingDataError
from .sieve import Step
from .tasks import Row

BAR_PX, LINE_PX, LABEL_PX = 420, 20, 190
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Training set</title>
<style>body {{ font: 15px sans-serif; margin: 2em; }} text {{ font: 12px sans-serif; }} rect {{ fill: #4a7; }}</style>
<h1>Training set</h1><p>{summary}</p>{charts}</html>
"""


@dataclass(frozen=True)
class Chart:
    """Counts of one thing.

    Attributes:
        title: what is counted.
        counts: label and number of pictures, in order.
    """

    title: str
    counts: tuple[tuple[str, int], ...]

    def markdown(self) -> str:
        rows = (f"| {label} | {count:,} |" for label, count in self.counts)
        return "\n".join([f"| {self.title} | pictures |", "|---|---|", *rows])

    def svg(self) -> str:
        most = max((count for _, count in self.counts), default=0) or 1
        bars = "".join(
            f'<text x="0" y="{LINE_PX * i + 14}">{escape(label)}</text>'
            f'<rect x="{LABEL_PX}" y="{LINE_PX * i + 3}" width="{BAR_PX * count / most:.1f}" height="14"/>'
            f'<text x="{LABEL_PX + 6 + BAR_PX * count / most:.1f}" y="{LINE_PX * i + 14}">{count:,}</text>'
            for i, (label, count) in enumerate(self.counts)
        )
        size = f'width="{LABEL_PX + BAR_PX + 90}" height="{LINE_PX * len(self.counts) + 6}"'
        return f"<h2>{escape(self.title)}</h2><svg {size}>{bars}</svg>"


def charts_of(rows: Sequence[Row]) -> list[Chart]:
    """Returns the counts of a report: by step, face size, pose, sharpness, and origin."""
    kept = [row for row in rows if row["step"] is None]
    by_step = Counter(row["step"] or "in the set" for row in rows)
    steps = ["in the set", *(step.value for step in Step)]
    copies = Counter(row["duplicate_of"] for row in rows if row["duplicate_of"] is not None)
    return [
        Chart("what became of the pictures", tuple((step, by_step[step]) for step in steps if by_step[step])),
        histogram("length of the face in the set's picture, pixels", kept, "face_length", step=32),
        histogram("roll of the head, degrees", kept, "roll", step=15),
        histogram("turn of the head, from -1 (left) to 1 (right)", kept, "turn", step=0.25),
        histogram("points of the skeleton", kept, "body_points", step=3),
        Chart("copies of one picture that were left out", counted(copies.values(), lambda number: f"{number}")),
        Chart("source", counted((row["source"] or "not named" for row in kept), str)),
        Chart("licence", counted((row["licence"] or "not named" for row in kept), str)),
    ]


def counted(values, name: Callable[..., str]) -> tuple[tuple[str, int], ...]:  # noqa: ANN001 - any that can be sorted
    return tuple((name(value), count) for value, count in sorted(Counter(values).items()))


def histogram(title: str, rows: Sequence[Row], column: str, *, step: float) -> Chart:
    """Counts the values of a column in intervals; pictures without a value are a row of their own."""
    numbers = [row[column] for row in rows if row[column] is not None]
    places = Counter(int(number // step) for number in numbers)
    bars = [(f"{place * step:g} to {(place + 1) * step:g}", places[place]) for place in _between(places)]
    without = len(rows) - len(numbers)
    return Chart(title, tuple([*bars, ("not known", without)] if without else bars))


def _between(places: Counter[int]) -> Iterator[int]:
    yield from range(min(places), max(places) + 1) if places else ()


def text_of(charts: Sequence[Chart]) -> str:
    return "\n\n".join(chart.markdown() for chart in charts if chart.counts)


def write_page(path: Path, rows: Sequence[Row], charts: Sequence[Chart]) -> None:
    """Writes the charts as a page that needs no other file."""
    kept = sum(row["step"] is None for row in rows)
    drawn = "".join(chart.svg() for chart in charts if chart.counts)
    with written_whole(path, TrainingDataError) as partial:
        partial.write_text(PAGE.format(summary=f"{kept:,} of {len(rows):,} pictures are in the set.", charts=drawn))
