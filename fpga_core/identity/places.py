"""Places for people: regions from boxes, masks, faces or skeletons, before anyone is assigned to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from torch import Tensor

from ..boundaries import shortened
from ..errors import InvalidInputError
from ..faces.face import PictureFaces
from ..faces.keypoint_formats import read_pose_keypoints
from ..geometry import Box
from ..shapes import Extent, as_masks
from .heads import head_box
from .regions import Region

NO_EMBEDDINGS: Mapping[str, np.ndarray] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Place:
    """A place in the picture that someone can be assigned to.

    Attributes:
        label: its source, e.g. `box 2`.
        region: None if the place cannot be used.
        face_box: where the face is meant to be, not grown, fractions of the picture; None if only a region is known.
        embeddings: recogniser hash -> (512,) of the face that is there, if one was found.
        problem: why the place cannot be used.
    """

    label: str
    region: Region | None
    face_box: Box | None = None
    embeddings: Mapping[str, np.ndarray] = field(default_factory=lambda: NO_EMBEDDINGS)
    problem: str = ""

    @property
    def box(self) -> Box:
        """The box to sort and to draw the place by, fractions of the picture; empty if the place cannot be used."""
        return self.face_box or (self.region.box if self.region else Box(0, 0, 0, 0))


@dataclass(frozen=True, eq=False)
class FoundPlaces:
    """The places from one source, in its own order, and notes for the user."""

    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Mark:
    """A head that a source marks.

    Attributes:
        label: what to call it.
        box: of the face, pixels; None if the source does not tell where it is.
        embeddings: as in `Place`.
    """

    label: str
    box: Box | None
    embeddings: Mapping[str, np.ndarray] = field(default_factory=lambda: NO_EMBEDDINGS)


@dataclass(frozen=True)
class Edges:
    """How regions are made from their marks: `grow` and `feather` of `Region`."""

    grow: float = 0.0
    feather: float = 0.0


def find_places(
    canvas: Extent,
    edges: Edges,
    *,
    boxes: object = None,
    masks: Tensor | None = None,
    faces: Sequence[PictureFaces] | None = None,
    skeleton: object = None,
) -> FoundPlaces | None:
    """Places read off the one source that is given; None if none is.

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


def places_from_boxes(boxes: object, canvas: Extent, edges: Edges) -> FoundPlaces:
    """Reads places from the value of a BOUNDING_BOX socket.

    Args:
        boxes: one `{"x", "y", "width", "height"}` in pixels of the canvas, a list of them, or one list per picture.
    Raises:
        InvalidInputError: it is none of these.
    """
    if not isinstance(boxes, Mapping | Sequence) or isinstance(boxes, str):
        raise InvalidInputError(
            f"boxes must be bounding boxes, not {type(boxes).__name__}; connect a BOUNDING_BOX output"
        )
    listed = [cast(object, boxes)] if isinstance(boxes, Mapping) else cast("Sequence[object]", boxes)
    notes: tuple[str, ...] = ()
    if listed and isinstance(listed[0], Sequence):
        notes = _first_picture_note("boxes", len(listed))
        listed = cast("Sequence[object]", listed[0])
    marks = [_Mark(f"box {number}", _read_box(box, number)) for number, box in enumerate(listed, 1)]
    return FoundPlaces(_places_from_marks(marks, canvas, edges), notes)


def places_from_masks(masks: Tensor, canvas: Extent, edges: Edges) -> FoundPlaces:
    """Returns one place per mask, without face boxes, because a mask can show a whole person.

    Args:
        masks: (num_places, height, width), of any size: masks cover the whole canvas.
    Raises:
        ShapeMismatchError: they are not masks.
    """
    masks = as_masks(masks)
    regions = [Region.from_mask(mask, grow=edges.grow, feather=edges.feather) for mask in masks]
    places = tuple(
        Place(f"mask {number}", region, problem="" if region else "it is empty")
        for number, region in enumerate(regions, 1)
    )
    return FoundPlaces(places, _stretch_note("masks", Extent(masks.shape[-1], masks.shape[-2]), canvas))


def places_from_faces(pictures: Sequence[PictureFaces], canvas: Extent, edges: Edges) -> FoundPlaces:
    """Returns one place per face of the first picture, in the given order, with the faces' embeddings.

    Raises:
        InvalidInputError: there is no picture.
    """
    if not pictures:
        raise InvalidInputError("faces hold no picture; connect the output of a node that received at least one")
    picture = pictures[0]
    marks = [_Mark(f"face {number}", face.box, face.embeddings) for number, face in enumerate(picture.faces, 1)]
    notes = (*_first_picture_note("faces", len(pictures)), *_stretch_note("faces", picture.extent, canvas))
    return FoundPlaces(_places_from_marks(marks, picture.extent, edges), notes)


def places_from_skeleton(skeleton: object, canvas: Extent, edges: Edges) -> FoundPlaces:
    """Returns one place per body of the first picture: its head, estimated from nose, eyes, ears and neck.

    Args:
        skeleton: the value of a POSE_KEYPOINT socket.
    Raises:
        InvalidInputError: it is malformed.
        ShapeMismatchError: its aspect ratio is not that of the canvas.
    """
    frames = cast("list[object]", skeleton) if isinstance(skeleton, list) else None
    (picture,) = read_pose_keypoints(frames[:1] if frames is not None else cast(object, skeleton), [canvas])
    marks = [_Mark(f"body {number}", head_box(body.keypoints)) for number, body in enumerate(picture.bodies, 1)]
    return FoundPlaces(
        _places_from_marks(marks, canvas, edges), _first_picture_note("skeletons", 1 if frames is None else len(frames))
    )


def _places_from_marks(marks: Iterable[_Mark], extent: Extent, edges: Edges) -> tuple[Place, ...]:
    """Returns places from boxes in pixels of a picture of `extent`."""
    places: list[Place] = []
    for mark in marks:
        if mark.box is None:
            places.append(Place(mark.label, None, problem="the skeleton does not show its head"))
            continue
        face_box = mark.box.normalised(extent)
        region = Region.from_box(face_box, grow=edges.grow, feather=edges.feather)
        problem = "" if region else _box_problem(mark.box, extent)
        places.append(Place(mark.label, region, face_box=face_box, embeddings=mark.embeddings, problem=problem))
    return tuple(places)


def _box_problem(box: Box, extent: Extent) -> str:
    size = f"{box.width:.0f}x{box.height:.0f} at ({box.x0:.0f}, {box.y0:.0f})"
    return f"it is empty ({size})" if box.area <= 0 else f"{size} is outside the {extent} picture"


def _read_box(box: object, number: int) -> Box:
    sides: Mapping[str, Any] = cast("Mapping[str, Any]", box) if isinstance(box, Mapping) else {}
    try:
        x, y, width, height = (float(sides[key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"box {number} is {shortened(f'{box!r}')}; a box needs the numbers x, y, width and height"
        ) from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise InvalidInputError(f"box {number} is {shortened(f'{box!r}')}; x, y, width and height must be finite")
    return Box(x, y, x + width, y + height)


def _first_picture_note(source: str, num_pictures: int) -> tuple[str, ...]:
    if num_pictures < 2:
        return ()
    return (
        (
            f"{source} come from {num_pictures} pictures, but a cast has one set of places: those of the first "
            "picture are used"
        ),
    )


def _stretch_note(source: str, extent: Extent, canvas: Extent) -> tuple[str, ...]:
    """Returns a note if a source is stretched, because its aspect ratio is not that of the canvas."""
    if extent.has_aspect_of(canvas):
        return ()
    return (f"{source} come from a {extent} picture and are stretched to the {canvas} canvas",)
