"""Scenes of the small world as data: who stands where, in which pose, and against which background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from ..fpga_core.faces.face import Body, Face, PictureFaces
from ..fpga_core.geometry import Box
from ..fpga_core.shapes import Extent
from . import anatomy
from .people import Person, random_person

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (200, 50, 50), "blue": (50, 80, 200), "green": (60, 160, 70), "yellow": (225, 200, 60),
    "purple": (140, 70, 170), "orange": (230, 130, 40), "white": (235, 235, 235), "gray": (120, 120, 125),
    "teal": (50, 160, 160), "pink": (235, 150, 180),
}  # fmt: skip
COLOR_NAMES = tuple(COLORS)
PATTERNS = ("plain", "striped", "dotted", "hilly")


class Shot(str, Enum):
    """How many people a picture shows, and how much of them."""

    CLOSE = "close-up"
    HALF = "half-body"
    FULL = "full-body"
    DUO = "duo"
    TRIO = "trio"

    @property
    def num_people(self) -> int:
        return {Shot.DUO: 2, Shot.TRIO: 3}.get(self, 1)


# For each shot, half the face's height and the y of its middle, as fractions of the picture.
FRAMING = {Shot.CLOSE: (0.29, 0.47), Shot.HALF: (0.17, 0.32), Shot.FULL: (0.085, 0.18), Shot.DUO: (0.14, 0.36),
           Shot.TRIO: (0.105, 0.36)}  # fmt: skip
FREQUENCIES = {Shot.CLOSE: 0.3, Shot.HALF: 0.22, Shot.FULL: 0.16, Shot.DUO: 0.18, Shot.TRIO: 0.14}


@dataclass(frozen=True)
class Actor:
    """A person in a scene. Lengths and positions are fractions of the picture, and angles are in radians.

    Attributes:
        person: who it is.
        head: position, size and rotation of the head.
        smile: from -1, sad, to 1, smiling.
        mouth_open: from 0, shut, to 1, wide open.
        arms: (upper arm, forearm) of the arm on the viewer's left and on the right, as angles outwards from hanging
            down.
        stride: how far the legs are apart, from 0 to 1.
        shirt, trousers: names of COLORS.
    """

    person: Person
    head: anatomy.Head
    smile: float
    mouth_open: float
    arms: tuple[tuple[float, float], tuple[float, float]]
    stride: float
    shirt: str
    trousers: str

    @property
    def expression(self) -> str:
        return expression_of(self.smile)


def expression_of(smile: float) -> str:
    """Returns the caption's word for a smile from -1 to 1."""
    return "smiling" if smile > 1 / 3 else "sad" if smile < -1 / 3 else "calm"


WHOLE = Box(0, 0, 1, 1)


@dataclass(frozen=True)
class Scene:
    """One picture's content, independent of its size.

    Attributes:
        shot: what the caption says about the number of people, and how much of them the picture shows.
        background, pattern: one of COLORS, and one of PATTERNS.
        actors: the people in it, from left to right.
        window: the visible part of the background; from 0 to 1 is all of it.
    """

    shot: Shot
    background: str
    pattern: str
    actors: tuple[Actor, ...]
    window: Box = WHOLE

    def zoomed(self, window: Box) -> Scene:
        """Returns the scene of a square part of the picture, given as fractions of it. The caption stays the same."""
        scale = 1 / window.width
        heads = (
            replace(
                actor.head,
                x=(actor.head.x - window.x0) * scale,
                y=(actor.head.y - window.y0) * scale,
                radius=actor.head.radius * scale,
            )
            for actor in self.actors
        )
        actors = tuple(replace(actor, head=head) for actor, head in zip(self.actors, heads, strict=True))
        seen = window.scaled(self.window.width, self.window.height)
        x, y = self.window.x0, self.window.y0
        return replace(self, actors=actors, window=Box(seen.x0 + x, seen.y0 + y, seen.x1 + x, seen.y1 + y))

    @property
    def caption(self) -> str:
        """The caption: shot, expressions, shirts and background, but nothing that says who somebody is."""
        shirts = " and ".join(f"{actor.expression} person in {actor.shirt}" for actor in self.actors)
        return f"{self.shot.value} of {shirts} on {self.background} {self.pattern} background"

    def faces(self, extent: Extent) -> PictureFaces:
        """Returns exact boxes, 68 landmarks and 18 body keypoints, in pixels of a picture of this size.

        `faces[i]` and `bodies[i]` belong to `actors[i]`.
        """
        scale = np.array([extent.width, extent.height], float)
        faces, bodies = [], []
        for actor in self.actors:
            low, high = anatomy.face_bounds(actor.person, actor.head)
            box = Box(*(low * scale), *(high * scale))
            faces.append(Face(box=box, landmarks=anatomy.landmarks(actor) * scale))
            keypoints = anatomy.keypoints(actor) * [*scale, 1]
            bodies.append(Body(keypoints))
        return PictureFaces(extent, tuple(faces), tuple(bodies))


def random_scene(rng: np.random.Generator, shot: Shot | None = None, people: tuple[Person, ...] | None = None) -> Scene:
    """A scene.

    Args:
        rng: the generator that everything else is drawn from.
        shot: the shot; None: drawn by FREQUENCIES.
        people: the people from left to right, as many as the shot shows; None: drawn.
    """
    if shot is None:
        shot = list(FREQUENCIES)[rng.choice(len(FREQUENCIES), p=list(FREQUENCIES.values()))]
    people = people or tuple(random_person(rng) for _ in range(shot.num_people))
    if len(people) != shot.num_people:
        raise ValueError(f"a {shot.value} shows {shot.num_people} people, not {len(people)}")
    actors = tuple(random_actor(rng, person, shot, place) for place, person in enumerate(people))
    return Scene(shot, COLOR_NAMES[rng.integers(len(COLORS))], PATTERNS[rng.integers(len(PATTERNS))], actors)


def random_actor(rng: np.random.Generator, person: Person, shot: Shot, place: int) -> Actor:
    radius, height = FRAMING[shot]
    head = anatomy.Head(
        x=(place + 0.5) / shot.num_people + rng.uniform(-0.06, 0.06) / shot.num_people**0.5,
        y=height + rng.uniform(-0.04, 0.04),
        radius=radius * rng.uniform(0.9, 1.1),
        roll=rng.uniform(-0.25, 0.25),
        yaw=rng.uniform(-1, 1),
        pitch=rng.uniform(-1, 1),
    )
    # A single person can raise both arms. Neighbours leave each other room.
    widest = 2.4 if shot.num_people == 1 else 0.4
    left, right = ((rng.uniform(-0.1, widest), rng.uniform(-0.3, 0.9)) for _ in range(2))
    return Actor(
        person=person,
        head=head,
        smile=rng.uniform(-1, 1),
        mouth_open=max(0.0, rng.uniform(-1, 1)),
        arms=(left, right),
        stride=rng.uniform(0.2, 1),
        shirt=COLOR_NAMES[rng.integers(len(COLORS))],
        trousers=COLOR_NAMES[rng.integers(len(COLORS))],
    )
