"""Paints scenes with OpenCV, 4 times supersampled, in a few milliseconds each."""

from __future__ import annotations

import cv2
import numpy as np

from . import anatomy
from .scenes import COLORS, Actor, Scene

SUPERSAMPLING = 4
LIP_COLOR = (170, 50, 60)
MOUTH_COLOR = (70, 15, 20)
GLASSES_COLORS = {1: (30, 30, 30), 2: (120, 20, 20)}


def paint(scene: Scene, size_px: int) -> np.ndarray:
    """Paints a square picture of a scene, (size_px, size_px, 3) uint8 RGB."""
    canvas = paint_background(scene, size_px * SUPERSAMPLING)
    for actor in scene.actors:
        paint_body(canvas, actor)
        paint_head(canvas, actor)
    return cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)


def paint_mask(actor: Actor, size_px: int, scale: float = 1.0) -> np.ndarray:
    """Paints how much of each pixel a face without hair covers, (size_px, size_px) uint8. `scale` enlarges the face."""
    canvas = np.zeros((size_px * SUPERSAMPLING,) * 2, np.uint8)
    outline = scale * anatomy.face_outline(actor.person, np.linspace(0, 2 * np.pi, 64))
    cv2.fillPoly(canvas, [pixels(canvas, actor.head.place(outline))], 255)
    return cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)


def paint_face_masks(scene: Scene, size_px: int) -> np.ndarray:
    """Paints the masks of all faces, (actors, size_px, size_px) float32 in [0, 1]."""
    return np.stack([paint_mask(actor, size_px) for actor in scene.actors]).astype(np.float32) / 255


def paint_background(scene: Scene, size: int) -> np.ndarray:
    steps = np.arange(size, dtype=np.float32) / size
    across = (scene.window.x0 + scene.window.width * steps)[None, :, None]
    down = (scene.window.y0 + scene.window.height * steps)[:, None, None]
    light = 0.72 + 0.28 * down
    if scene.pattern == "striped":
        light = light * np.where(across * 8 % 1 < 0.5, 1, np.float32(0.8))
    elif scene.pattern == "dotted":
        light = light * np.where((across * 6 % 1 - 0.5) ** 2 + (down * 6 % 1 - 0.5) ** 2 < 0.05, np.float32(0.75), 1)
    elif scene.pattern == "hilly":
        light = light * np.where(down > 0.62 + 0.08 * np.sin(7 * across), np.float32(0.68), 1)
    return np.broadcast_to(light * np.array(COLORS[scene.background], np.float32), (size, size, 3)).astype(
        np.uint8, order="C"
    )


def pixels(canvas: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Converts picture coordinates to whole pixels of the canvas, as OpenCV needs them."""
    return np.round(np.asarray(places) * canvas.shape[0]).astype(np.int32)


def rgb(color: tuple[float, ...], light: float = 1.0) -> tuple[float, ...]:
    return tuple(float(min(255, channel * light)) for channel in color)


def stroke(canvas: np.ndarray, places: list[np.ndarray], width: float, color: tuple[float, ...]) -> None:
    thickness = max(1, round(width * canvas.shape[0]))
    cv2.polylines(canvas, [pixels(canvas, np.stack(places))], False, color, thickness, cv2.LINE_AA)


def paint_body(canvas: np.ndarray, actor: Actor) -> None:
    joint, unit = anatomy.joints(actor), actor.head.radius
    shirt, trousers = rgb(COLORS[actor.shirt]), rgb(COLORS[actor.trousers], 0.45)
    for side in ("left", "right"):
        stroke(canvas, [joint[f"{side} hip"], joint[f"{side} ankle"]], 0.95 * unit, trousers)
        stroke(canvas, [joint[f"{side} ankle"], joint[f"{side} ankle"] + (0, 0.2 * unit)], 0.8 * unit, (40, 35, 35))
    waist = joint["hips"] + (0, 0.2 * unit)
    torso = [joint["left shoulder"], joint["right shoulder"], waist + (1.1 * unit, 0), waist - (1.1 * unit, 0)]
    cv2.fillPoly(canvas, [pixels(canvas, np.stack(torso))], shirt, cv2.LINE_AA)
    skin = rgb(actor.person.skin, 0.9)
    stroke(canvas, [np.array([actor.head.x, actor.head.y]), joint["neck"] + (0, 0.35 * unit)], 0.75 * unit, skin)
    for side in ("left", "right"):
        arm = [joint[f"{side} {name}"] for name in ("shoulder", "elbow", "wrist")]
        stroke(canvas, arm, 0.74 * unit, rgb(COLORS[actor.shirt], 0.75))
        stroke(canvas, arm, 0.6 * unit, shirt)
        center = tuple(pixels(canvas, arm[-1]).tolist())
        cv2.circle(canvas, center, max(1, round(0.36 * unit * canvas.shape[0])), skin, -1, cv2.LINE_AA)


def paint_head(canvas: np.ndarray, actor: Actor) -> None:
    person, head = actor.person, actor.head
    scale = head.radius * canvas.shape[0]

    def ellipse(
        middle: tuple[float, float], axes: tuple[float, float], color: tuple[float, ...], line: float = 0
    ) -> None:
        center = tuple(pixels(canvas, head.place(np.array(middle))).tolist())
        size = tuple(max(1, round(axis * scale)) for axis in axes)
        thickness = max(1, round(line * scale)) if line else -1
        cv2.ellipse(canvas, center, size, np.degrees(head.roll), 0, 360, color, thickness, cv2.LINE_AA)

    def line(points: np.ndarray, width: float, color: tuple[float, ...]) -> None:
        stroke(canvas, list(head.place(np.asarray(points))), width * head.radius, color)

    hair, skin, width = rgb(person.hair), rgb(person.skin), person.face_width
    if person.hair_style in (1, 3):
        ellipse((0, 0.2), (width * 1.28, 1.15), hair)
    if person.hair_style == 5:
        ellipse((0, -1.12), (0.34, 0.3), hair)
    if person.hair_style != 4:
        ellipse((0, -0.12), (width * 1.13, 1.03), hair)
    ellipse((0, 0.05), (width, 1.0), skin)
    if person.beard in (1, 2):
        jaw = anatomy.face_outline(person, np.linspace(0.12 * np.pi, 0.88 * np.pi, 24))
        top = anatomy.MOUTH_LINE - (0.12 if person.beard == 2 else -0.2)
        outline = np.concatenate([jaw, [(-width * 0.72, top), (width * 0.72, top)]])
        cv2.fillPoly(canvas, [pixels(canvas, head.place(outline))], rgb(person.hair, 0.9), cv2.LINE_AA)
    fringes = {0: ((0, -0.66), 0.95, 0.36), 1: ((0, -0.66), 0.95, 0.36), 2: ((-0.22 * width, -0.7), 0.78, 0.34)}
    middle, wide, tall = fringes.get(person.hair_style, ((0, -0.8), 0.86, 0.2))
    if person.hair_style != 4:
        ellipse(middle, (width * wide, tall), hair)
    paint_features(actor, ellipse, line)
    upper, lower = anatomy.lips(actor)
    if person.beard == 3:
        tip = anatomy.nose(person, head)
        line([(tip[0] - 0.24, tip[1] + 0.17), (tip[0], tip[1] + 0.12), (tip[0] + 0.24, tip[1] + 0.17)], 0.11, hair)
    outline = pixels(canvas, head.place(np.concatenate([upper, lower[::-1]])))
    cv2.fillPoly(canvas, [outline], MOUTH_COLOR if actor.mouth_open > 0.25 else LIP_COLOR, cv2.LINE_AA)
    line(upper, 0.055, LIP_COLOR)
    line(lower, 0.055, LIP_COLOR)


def paint_features(actor: Actor, ellipse, line) -> None:  # noqa: ANN001 - the two ways of painting in face coordinates
    """Paints eyes, brows, glasses and nose."""
    person, head = actor.person, actor.head
    for side in (-1, 1):
        u, v = anatomy.eye(person, head, side)
        look = u + 0.03 * head.yaw
        size = person.eye_size
        ellipse((u, v), (size * 1.3, size * 0.95), (250, 250, 250))
        ellipse((look, v), (size * 0.7, size * 0.8), rgb(person.eyes))
        ellipse((look, v), (size * 0.32, size * 0.36), (15, 15, 15))
        line(anatomy.brow_line(person, head, side), 2 * person.brow, rgb(person.hair, 0.7))
        if person.glasses == 1:
            ellipse((u, v), (0.24, 0.22), GLASSES_COLORS[1], 0.05)
        if person.glasses == 2:
            corners = [(u + a, v + b) for a, b in ((-0.24, -0.17), (0.24, -0.17), (0.24, 0.17), (-0.24, 0.17))]
            line([*corners, corners[0]], 0.05, GLASSES_COLORS[2])
    if person.glasses:
        gap = person.eye_gap - 0.24
        line([head.feature(-gap, anatomy.EYE_LINE), head.feature(gap, anatomy.EYE_LINE)], 0.05,
             GLASSES_COLORS[person.glasses])  # fmt: skip
    tip = anatomy.nose(person, head)
    shade = rgb(person.skin, 0.7)
    line([head.feature(0, 0.02), tip, (tip[0] - 0.09, tip[1])], 0.06, shade)
