"""The people of the small world: everything that stays the same from picture to picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]

HAIR_COLORS: tuple[Color, ...] = (
    (30, 25, 20),
    (90, 55, 25),
    (170, 110, 50),
    (225, 190, 110),
    (150, 60, 30),
    (150, 150, 150),
    (90, 60, 160),
)
EYE_COLORS: tuple[Color, ...] = ((60, 110, 180), (90, 60, 30), (60, 130, 70), (90, 90, 90))
DARKEST_SKIN, LIGHTEST_SKIN = (90, 55, 35), (250, 215, 190)
NUM_HAIR_STYLES = 6
"""Fringe, long with fringe, parted, long, bald, bun."""
NUM_GLASSES = 3
"""None, round, square."""
NUM_BEARDS = 4
"""None, short, full, moustache."""


@dataclass(frozen=True)
class Person:
    """One person. Colours are RGB in 0-255; lengths are fractions of half the face's height.

    Attributes:
        skin, hair, eyes: colours.
        hair_style, glasses, beard: number of the kind, below NUM_HAIR_STYLES, NUM_GLASSES and NUM_BEARDS.
        face_width: half width of the face.
        eye_gap: distance from the middle of the face to the middle of an eye.
        eye_size: half height of an eye.
        brow: half thickness of an eyebrow.
        nose_length: distance from the line of the eyes down to the tip.
        mouth_width: half width of the mouth at rest.
    """

    skin: Color
    hair: Color
    eyes: Color
    hair_style: int
    glasses: int
    beard: int
    face_width: float
    eye_gap: float
    eye_size: float
    brow: float
    nose_length: float
    mouth_width: float


def random_person(rng: np.random.Generator) -> Person:
    """Returns a random person. Every trait is drawn independently."""
    skin = np.array(DARKEST_SKIN) + rng.uniform() * np.subtract(LIGHTEST_SKIN, DARKEST_SKIN)
    hair = np.clip(np.array(HAIR_COLORS[rng.integers(len(HAIR_COLORS))]) + rng.uniform(-12, 12, 3), 0, 255)
    return Person(
        skin=tuple(skin),
        hair=tuple(hair),
        eyes=EYE_COLORS[rng.integers(len(EYE_COLORS))],
        hair_style=int(rng.integers(NUM_HAIR_STYLES)),
        glasses=int(rng.integers(NUM_GLASSES)),
        beard=int(rng.integers(NUM_BEARDS)),
        face_width=rng.uniform(0.62, 0.82),
        eye_gap=rng.uniform(0.28, 0.40),
        eye_size=rng.uniform(0.09, 0.15),
        brow=rng.uniform(0.015, 0.055),
        nose_length=rng.uniform(0.22, 0.36),
        mouth_width=rng.uniform(0.20, 0.40),
    )
