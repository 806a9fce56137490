"""What is drawn on the canvas of Make Cast: people with their names, heads and poses, as fractions of the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..boundaries import shortened
from ..errors import InvalidInputError
from ..faces.skeleton import NUM_KEYPOINTS
from ..geometry import Box
from ..shapes import Extent

Keypoint = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class DrawnPerson:
    """One person on the canvas.

    Attributes:
        name: whom it is; empty if that is open.
        head: the box of the face, fractions of the picture.
        pose: OpenPose's 18 keypoints, fractions of the picture, None for one that is not seen; empty without a body.
    """

    name: str
    head: Box
    pose: tuple[Keypoint | None, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """The people on the canvas, in the order in which they were drawn."""

    people: tuple[DrawnPerson, ...] = ()

    def pose_keypoints(self, canvas: Extent) -> list[dict[str, object]]:
        """Returns the bodies as the value of a POSE_KEYPOINT socket, one frame in pixels of the canvas."""
        people = [
            {
                "pose_keypoints_2d": [
                    number
                    for point in person.pose
                    for number in ((point[0] * canvas.width, point[1] * canvas.height, 1.0) if point else (0, 0, 0))
                ]
            }
            for person in self.people
            if person.pose
        ]
        return [{"canvas_width": canvas.width, "canvas_height": canvas.height, "people": people}]


EMPTY_DRAWING = Drawing()


def read_drawing(value: object) -> Drawing:
    """Reads the value of the canvas.

    Args:
        value: `{"people": [{"name", "head": [x, y, width, height], "pose": [[x, y] or null, ...]}]}` in fractions of
            the picture; `name` and `pose` can be left out, and so can everything: None and {} are an empty canvas.
    Raises:
        InvalidInputError: it is malformed.
    """
    fields = _mapping(value or {}, "the drawing")
    people = fields.get("people", [])
    if not isinstance(people, Sequence) or isinstance(people, str):
        raise InvalidInputError(f"the people of a drawing must be a list, not {shortened(repr(people))}")
    return Drawing(tuple(_read_person(person, n) for n, person in enumerate(cast("Sequence[object]", people), 1)))


def _read_person(value: object, number: int) -> DrawnPerson:
    what = f"person {number} of the drawing"
    fields = _mapping(value, what)
    x, y, width, height = _numbers(fields.get("head"), 4, f"the head of {what}")
    pose: object = fields.get("pose") or ()
    if not isinstance(pose, Sequence) or len(cast("Sequence[object]", pose)) not in (0, NUM_KEYPOINTS):
        raise InvalidInputError(f"the pose of {what} must be a list of {NUM_KEYPOINTS} points, or empty")
    points = [
        None if point is None else _numbers(point, 2, f"point {n} of {what}")
        for n, point in enumerate(cast("Sequence[object]", pose), 1)
    ]
    return DrawnPerson(
        name=str(fields.get("name") or "").strip(),
        head=Box(x, y, x + width, y + height),
        pose=tuple(None if point is None else (point[0], point[1]) for point in points),
    )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{what} must be an object, not {shortened(repr(value))}")
    return cast("Mapping[str, Any]", value)


def _numbers(value: object, count: int, what: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in cast("Sequence[Any]", value))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} is {shortened(repr(value))}; it needs {count} numbers") from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InvalidInputError(f"{what} is {shortened(repr(value))}; it needs {count} finite numbers")
    return numbers
