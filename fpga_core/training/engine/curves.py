"""Draws loss curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from .loss_log import Line

WIDTH, PANEL_HEIGHT = 800, 240
LEFT, RIGHT, TOP, BOTTOM = 70, 15, 24, 22
RAW, SMOOTH, INK, GRID = (190, 205, 230), (30, 80, 180), (40, 40, 40), (230, 230, 230)
NUM_GRID_LINES = 4
SMOOTHED_FRACTION = 0.02
"""Each point of the dark line is a mean over this part of the training."""

NOT_DRAWN = ("iteration", "learning_rate")

MAX_POINTS = 8192
"""A curve with more points keeps the means of neighbours instead, ten to a column of the picture's pixels."""


class LossCurves:
    """The curves of the loss and its parts. However long the training is, a line is added and drawn in the same time.

    Args:
        lines: lines of the log; a part is missing from a line if it was not computed in that iteration.
    """

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._curves: dict[str, _Curve] = {}
        self._last = 0.0
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        self._last = max(self._last, line["iteration"])
        for name in line:
            if name not in NOT_DRAWN:
                self._curves.setdefault(name, _Curve()).add(line["iteration"], line[name])

    def draw(self) -> Image.Image:
        """One panel for the loss and for each of its parts: light the values, dark their mean; 800 pixels wide."""
        picture = Image.new("RGB", (WIDTH, PANEL_HEIGHT * max(len(self._curves), 1)), "white")
        for number, (name, curve) in enumerate(self._curves.items()):
            picture.paste(_panel(name, np.array(curve.points), self._last), (0, number * PANEL_HEIGHT))
        return picture


@dataclass
class _Curve:
    """The points of one curve, (iteration, value), each the mean of `span` lines."""

    points: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    span: int = 1
    _ahead: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def add(self, iteration: float, value: float) -> None:
        self._ahead.append((iteration, value))
        if len(self._ahead) == self.span:
            self.points.append(_mean(self._ahead))
            self._ahead = []
        if len(self.points) == MAX_POINTS:
            self.points = [_mean(self.points[start : start + 2]) for start in range(0, MAX_POINTS, 2)]
            self.span *= 2


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _panel(name: str, points: np.ndarray, last: float) -> Image.Image:
    """Draws one curve; points are (count, 2), iteration and value."""
    panel = Image.new("RGB", (WIDTH, PANEL_HEIGHT), "white")
    draw = ImageDraw.Draw(panel)
    low, high = float(points[:, 1].min()), float(points[:, 1].max())
    right, bottom = WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM

    def place(curve: np.ndarray) -> list[tuple[float, float]]:
        x = LEFT + curve[:, 0] / max(last, 1) * (right - LEFT)
        y = bottom - (curve[:, 1] - low) / (high - low or 1) * (bottom - TOP)
        return list(zip(x.tolist(), y.tolist(), strict=True))

    for line in range(NUM_GRID_LINES + 1):
        value = low + (high - low) * line / NUM_GRID_LINES
        y = bottom - (bottom - TOP) * line / NUM_GRID_LINES
        draw.line([(LEFT, y), (right, y)], fill=GRID)
        draw.text((6, y - 6), f"{value:.4g}", fill=INK)
    draw.text((LEFT, 6), name, fill=INK)
    draw.text((LEFT, bottom + 5), "0", fill=INK)
    draw.text((right - 40, bottom + 5), f"{last:.0f}", fill=INK)
    _draw_line(draw, place(points), color=RAW, width=1)
    _draw_line(draw, place(_running_mean(points)), color=SMOOTH, width=2)
    return panel


def _running_mean(points: np.ndarray) -> np.ndarray:
    window = max(round(len(points) * SMOOTHED_FRACTION), 1)
    kernel = np.ones(window) / window
    return np.stack([np.convolve(points[:, axis], kernel, mode="valid") for axis in (0, 1)], axis=1)


def _draw_line(
    draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], *, color: tuple[int, int, int], width: int
) -> None:
    if len(points) == 1:
        x, y = points[0]
        draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=color)
    else:
        draw.line(points, fill=color, width=width)
