"""Draws loss curves."""

from __future__ import annotations

from collections.abc import Sequence

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


def draw_curves(lines: Sequence[Line]) -> Image.Image:
    """The loss and each of its parts over the iterations, one panel each: light the values, dark their mean.

    Args:
        lines: lines of the log; a part is missing from a line if it was not computed in that iteration.
    Returns:
        A picture that is 800 pixels wide.
    """
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in NOT_DRAWN]
    picture = Image.new("RGB", (WIDTH, PANEL_HEIGHT * max(len(names), 1)), "white")
    last = max((line["iteration"] for line in lines), default=0)
    for number, name in enumerate(names):
        points = [(line["iteration"], line[name]) for line in lines if name in line]
        picture.paste(_panel(name, np.array(points, dtype=np.float64), last), (0, number * PANEL_HEIGHT))
    return picture


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
