"""The positions of eyes, mouths, elbows and knees: the geometry that painting, landmarks and skeletons share.

Face coordinates have their origin in the middle of the face. v points down, and half the face's height is 1. Picture
coordinates are fractions of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .people import Person
    from .scenes import Actor

EYE_LINE = -0.12
MOUTH_LINE = 0.54
BOW, UPPER_LIP = 0.15, -0.045
CHIN = 1.05


@dataclass(frozen=True)
class Head:
    """The position, size and rotation of a head.

    Attributes:
        x, y: the middle of the face, as fractions of the picture.
        radius: half the face's height, as a fraction of the picture.
        roll: rotation in the picture, in radians.
        yaw, pitch: rotation out of the picture, from -1 to 1.
    """

    x: float
    y: float
    radius: float
    roll: float
    yaw: float
    pitch: float

    def place(self, points: np.ndarray) -> np.ndarray:
        """Converts face coordinates, (..., 2), to picture coordinates."""
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        turned = np.asarray(points, float) @ np.array([[cos, sin], [-sin, cos]])
        return turned * self.radius + (self.x, self.y)

    def feature(self, u: float, v: float, depth: float = 1.0) -> tuple[float, float]:
        """Returns where yaw and pitch move a feature of the face. A nose (depth > 1) moves further than an eye."""
        return u + 0.15 * depth * self.yaw, v + 0.05 * depth * self.pitch


def eye(person: Person, head: Head, side: int) -> tuple[float, float]:
    """Returns the middle of an eye in face coordinates. Side -1 is the eye on the viewer's left."""
    return head.feature(side * person.eye_gap, EYE_LINE)


def nose(person: Person, head: Head) -> tuple[float, float]:
    """Returns the tip of the nose in face coordinates."""
    return head.feature(0, EYE_LINE + person.nose_length, 1.5)


def lips(actor: Actor) -> tuple[np.ndarray, np.ndarray]:
    """Returns the upper and lower lines of the mouth from left to right, in face coordinates, (9, 2) each."""
    width = actor.person.mouth_width * (1 + 0.15 * actor.smile)
    t = np.linspace(-1, 1, 9)
    bow = -BOW * actor.smile * t**2
    lines = []
    for thickness in (UPPER_LIP, 0.05 + 0.16 * actor.mouth_open):
        u, v = actor.head.feature(0, MOUTH_LINE)
        lines.append(np.stack([u + t * width, v + bow + thickness * (1 - t**2)], axis=1))
    return lines[0], lines[1]


def smile_of(points: np.ndarray) -> float:
    """Returns how much a face smiles, computed from its 68 landmarks: the inverse of `landmarks`."""
    ends = (points[0] + points[16]) / 2
    down = points[8] - ends  # from there, a face's outline is 1 high
    corners = (points[48] + points[54]) / 2
    return float(((points[51] - corners) @ down / (down @ down) - UPPER_LIP) / BOW)


def face_outline(person: Person, angles: np.ndarray) -> np.ndarray:
    """Returns points of the face's outline in face coordinates. Angle 0 is the viewer's right, pi / 2 the chin."""
    return np.stack([person.face_width * np.cos(angles), 0.05 + np.sin(angles)], axis=-1)


def face_bounds(person: Person, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Returns two corners of the box around a face, in picture coordinates."""
    edge = head.place(face_outline(person, np.linspace(0, 2 * np.pi, 64)))
    return edge.min(axis=0), edge.max(axis=0)


def landmarks(actor: Actor) -> np.ndarray:
    """Returns the 68 points of iBUG's layout, from the viewer's left to right, (68, 2) in picture coordinates."""
    person, head = actor.person, actor.head
    jaw = face_outline(person, np.linspace(np.pi, 0, 17))
    brows = [brow_line(person, head, -1), brow_line(person, head, 1)]
    tip = nose(person, head)
    bridge = np.linspace(head.feature(0, EYE_LINE), tip, 4)
    wings = np.stack([np.linspace(tip[0] - 0.12, tip[0] + 0.12, 5), np.full(5, tip[1] + 0.04)], axis=1)
    eyes = [eye_outline(person, head, side) for side in (-1, 1)]
    upper, lower = lips(actor)
    outer = np.concatenate([upper[[0, 1, 3, 4, 5, 7, 8]], lower[[7, 5, 4, 3, 1]]])
    inner = np.concatenate([upper[[0, 2, 4, 6, 8]], lower[[6, 4, 2]]])
    return head.place(np.concatenate([jaw, *brows, bridge, wings, *eyes, outer, inner]))


def brow_line(person: Person, head: Head, side: int) -> np.ndarray:
    """Returns an eyebrow from the viewer's left to right, (5, 2) in face coordinates."""
    inner, outer = person.eye_gap - 0.13, person.eye_gap + 0.15
    ends = [(side * inner, -0.33), (side * outer, -0.36)][::side]
    return np.linspace(head.feature(*ends[0]), head.feature(*ends[1]), 5)


def eye_outline(person: Person, head: Head, side: int) -> np.ndarray:
    """Returns iBUG's six points around an eye, (6, 2) in face coordinates."""
    middle = eye(person, head, side)
    angles = np.array([np.pi, 4 / 3 * np.pi, 5 / 3 * np.pi, 0, np.pi / 3, 2 / 3 * np.pi])
    return middle + person.eye_size * np.stack([1.3 * np.cos(angles), 0.95 * np.sin(angles)], axis=1)


def joints(actor: Actor) -> dict[str, np.ndarray]:
    """Returns the body's joints in picture coordinates. Left and right are the viewer's."""
    head, unit = actor.head, actor.head.radius
    neck = np.array([head.x, head.y + 1.15 * unit])
    found = {"neck": neck, "hips": neck + (0, 3.3 * unit)}
    for side, name, (upper, fore) in ((-1, "left", actor.arms[0]), (1, "right", actor.arms[1])):
        shoulder = neck + (side * 1.35 * unit, 0.5 * unit)
        elbow = shoulder + 1.5 * unit * np.array([side * np.sin(upper), np.cos(upper)])
        wrist = elbow + 1.35 * unit * np.array([side * np.sin(upper + fore), np.cos(upper + fore)])
        hip = found["hips"] + (side * 0.55 * unit, 0)
        ankle = hip + (side * actor.stride * 1.1 * unit, 4.6 * unit)
        found |= {f"{name} shoulder": shoulder, f"{name} elbow": elbow, f"{name} wrist": wrist}
        found |= {f"{name} hip": hip, f"{name} knee": (hip + ankle) / 2, f"{name} ankle": ankle}
    return found


def keypoints(actor: Actor) -> np.ndarray:
    """Returns OpenPose's 18 keypoints, (18, 3): picture coordinates and confidence, which is 0 outside the picture.

    People face the viewer, so their right side is on the viewer's left.
    """
    found = joints(actor)
    person, head = actor.person, actor.head
    eyes = [head.place(np.array(eye(person, head, side))) for side in (-1, 1)]
    ears = [head.place(face_outline(person, np.array(angle))) for angle in (np.pi, 0.0)]
    names = [f"{side} {joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist")]
    names += [f"{side} {joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")]
    points = [head.place(np.array(nose(person, head))), found["neck"], *(found[name] for name in names), *eyes, *ears]
    places = np.stack(points)
    seen = ((places >= 0) & (places <= 1)).all(axis=1)
    return np.concatenate([places, seen[:, None]], axis=1)
