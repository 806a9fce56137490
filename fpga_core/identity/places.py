"""Places for people: regions read off boxes, masks, found faces or skeletons, before anyone is assigned to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from torch import Tensor

from ..errors import InvalidInputError
from ..faces.face import PictureFaces
from ..faces.keypoint_formats import read_pose_keypoints
from ..geometry import Box
from ..shapes import Extent, as_masks
from .heads import head_box
from .regions import Region


@dataclass(frozen=True, eq=False)
class Place:
    """A place in the picture that someone can be assigned to.

    Attributes:
        label: what it was read off, e.g. `box 2`.
        region: None where the place cannot be used.
        face_box: where the face is meant to be, not grown, fractions of the picture; None where only a region is known.
        embeddings: recogniser hash -> (512,) of the face that is there, where one was found.
        problem: why the place cannot be used.
    """

    label: str
    region: Region | None
    face_box: Box | None = None
    embeddings: Mapping[str, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))
    problem: str = ""

    @property
    def box(self) -> Box:
        """The box to sort and to draw the place by, fractions of the picture; empty where the place cannot be used."""
        return self.face_box or (self.region.box if self.region else Box(0, 0, 0, 0))


@dataclass(frozen=True, eq=False)
class Places:
    """What was read off one source, in its own order, and what to tell the user about the reading."""

    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edges:
    """How regions are made from what marks them: `grow` and `feather` of `Region`."""

    grow: float = 0.0
    feather: float = 0.0


def find_places(
    canvas: Extent,
    edges: Edges,
    boxes: object = None,
    masks: Tensor | None = None,
    faces: Sequence[PictureFaces] | None = None,
    skeleton: object = None,
) -> Places | None:
    """Places read off the one source that is given; None where none is.

    Raises:
        InvalidInputError: several sources are given, or the one given cannot be read.
    """
    sources = {"boxes": boxes, "masks": masks, "faces": faces, "skeleton": skeleton}
    given = [name for name, source in sources.items() if source is not None]
    if len(given) > 1:
        raise InvalidInputError(
            f"{' and '.join(given)} are connected, but the places of a cast come from one source; disconnect "
            f"{'all but one' if len(given) > 2 else 'one of them'}"
        )
    if boxes is not None:
        return places_from_boxes(boxes, canvas, edges)
    if masks is not None:
        return places_from_masks(masks, canvas, edges)
    if faces is not None:
        return places_from_faces(faces, canvas, edges)
    if skeleton is not None:
        return places_from_skeleton(skeleton, canvas, edges)
    return None


def places_from_boxes(boxes: object, canvas: Extent, edges: Edges) -> Places:
    """Places from what travels on a BOUNDING_BOX socket.

    Args:
        boxes: one `{"x", "y", "width", "height"}` in pixels of the canvas, a list of them, or one list per picture.
    Raises:
        InvalidInputError: it is none of these.
    """
    listed = [boxes] if isinstance(boxes, Mapping) else boxes
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise InvalidInputError(
            f"boxes must be bounding boxes, not {type(boxes).__name__}; connect a BOUNDING_BOX output"
        )
    notes: tuple[str, ...] = ()
    if listed and isinstance(listed[0], Sequence):
        notes = _first_picture_note("boxes", len(listed))
        listed = listed[0]
    marked = [(f"box {number}", _read_box(box, number), {}) for number, box in enumerate(listed, 1)]
    return Places(_places_from_marks(marked, canvas, edges), notes)


def places_from_masks(masks: Tensor, canvas: Extent, edges: Edges) -> Places:
    """One place per mask; no face boxes, because a mask may show a whole person.

    Args:
        masks: (num_places, height, width), of any size: masks cover the whole canvas.
    Raises:
        ShapeMismatchError: they are no masks.
    """
    masks, places = as_masks(masks), []
    for number, mask in enumerate(masks, 1):
        region = Region.from_mask(mask, edges.grow, edges.feather)
        places.append(Place(f"mask {number}", region, problem="" if region else "it is empty"))
    return Places(tuple(places), _stretch_note("masks", Extent(masks.shape[-1], masks.shape[-2]), canvas))


def places_from_faces(pictures: Sequence[PictureFaces], canvas: Extent, edges: Edges) -> Places:
    """One place per face of the first picture, in the order given, with the faces' embeddings.

    Raises:
        InvalidInputError: there is no picture.
    """
    if not pictures:
        raise InvalidInputError("faces hold no picture; connect the output of a node that saw at least one")
    picture = pictures[0]
    marked = [(f"face {number}", face.box, face.embeddings) for number, face in enumerate(picture.faces, 1)]
    notes = (*_first_picture_note("faces", len(pictures)), *_stretch_note("faces", picture.extent, canvas))
    return Places(_places_from_marks(marked, picture.extent, edges), notes)


def places_from_skeleton(skeleton: object, canvas: Extent, edges: Edges) -> Places:
    """One place per body of the first picture: its head, estimated from nose, eyes, ears and neck.

    Args:
        skeleton: what travels on a POSE_KEYPOINT socket.
    Raises:
        InvalidInputError: it is malformed.
        ShapeMismatchError: its aspect ratio is not the canvas's.
    """
    num_pictures = len(skeleton) if isinstance(skeleton, list) else 1
    first = skeleton[:1] if isinstance(skeleton, list) else skeleton
    (picture,) = read_pose_keypoints(first, [canvas])
    marked = [(f"body {number}", head_box(body.keypoints), {}) for number, body in enumerate(picture.bodies, 1)]
    return Places(_places_from_marks(marked, canvas, edges), _first_picture_note("skeletons", num_pictures))


def _places_from_marks(
    marked: Iterable[tuple[str, Box | None, Mapping[str, np.ndarray]]], extent: Extent, edges: Edges
) -> tuple[Place, ...]:
    """Places from boxes in pixels of a picture of `extent`."""
    places = []
    for label, box, embeddings in marked:
        if box is None:
            places.append(Place(label, None, problem="the skeleton does not show its head"))
            continue
        face_box = box.normalised(extent)
        region = Region.from_box(face_box, edges.grow, edges.feather)
        problem = "" if region else _box_problem(box, extent)
        places.append(Place(label, region, face_box, embeddings, problem))
    return tuple(places)


def _box_problem(box: Box, extent: Extent) -> str:
    size = f"{box.width:.0f}x{box.height:.0f} at ({box.x0:.0f}, {box.y0:.0f})"
    return f"it is empty ({size})" if box.area <= 0 else f"{size} lies outside the {extent} picture"


def _read_box(box: object, number: int) -> Box:
    try:
        x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"box {number} is {box!r}; a box needs the numbers x, y, width and height") from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise InvalidInputError(f"box {number} is {box!r}; x, y, width and height must be finite")
    return Box(x, y, x + width, y + height)


def _first_picture_note(source: str, num_pictures: int) -> tuple[str, ...]:
    if num_pictures < 2:
        return ()
    return (f"{source} come from {num_pictures} pictures: a cast has one set of places, those of the first are used",)


def _stretch_note(source: str, extent: Extent, canvas: Extent) -> tuple[str, ...]:
    """Sources of the canvas's aspect ratio fit at any size; others are stretched, which the user should know."""
    if extent.has_aspect_of(canvas):
        return ()
    return (f"{source} come from a {extent} picture and are stretched to the canvas, which is {canvas}",)
