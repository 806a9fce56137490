"""Places for people: regions from a drawing, boxes, masks, faces or skeletons, before anyone is assigned to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from .drawing import EMPTY_DRAWING, Drawing
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
        name: whom the place is for; empty if that is open.
    """

    label: str
    region: Region | None
    face_box: Box | None = None
    embeddings: Mapping[str, np.ndarray] = field(default_factory=lambda: NO_EMBEDDINGS)
    problem: str = ""
    name: str = ""

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
        embeddings, name: as in `Place`.
    """

    label: str
    box: Box | None
    embeddings: Mapping[str, np.ndarray] = field(default_factory=lambda: NO_EMBEDDINGS)
    name: str = ""


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
    drawing: Drawing = EMPTY_DRAWING,
    boxes_canvas: Extent | None = None,
) -> FoundPlaces | None:
    """Places read off the one source that is given; None if none is.

    Args:
        canvas: size of the picture in pixels.
        edges: how regions are made from what the source marks.
        boxes, masks, faces, skeleton: the values of the sockets.
        drawing: the people drawn on the canvas itself; empty if nobody is.
        boxes_canvas: size of the canvas that the boxes were drawn on, if it is known.
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
    if given and drawing.people:
        raise InvalidInputError(
            f"{given[0]} is connected, and people are drawn on the canvas, but the places of a cast come from one "
            f"source; disconnect {given[0]}, or clear the canvas"
        )
    if drawing.people:
        return places_from_drawing(drawing, edges)
    if boxes is not None:
        return places_from_boxes(boxes, canvas, edges, boxes_canvas=boxes_canvas)
    if masks is not None:
        return places_from_masks(masks, canvas, edges)
    if faces is not None:
        return places_from_faces(faces, canvas, edges)
    if skeleton is not None:
        return places_from_skeleton(skeleton, canvas, edges)
    return None


def places_from_drawing(drawing: Drawing, edges: Edges) -> FoundPlaces:
    """Returns one place per person drawn on the canvas, for the person of that name."""
    unit = Extent(1, 1)
    marks = [_Mark(f"head {n}", person.head, name=person.name) for n, person in enumerate(drawing.people, 1)]
    return FoundPlaces(_places_from_marks(marks, unit, edges))


def places_from_boxes(
    boxes: object, canvas: Extent, edges: Edges, *, boxes_canvas: Extent | None = None
) -> FoundPlaces:
    """Reads places from the boxes of a BOUNDING_BOX socket, or the elements of Create Bounding Boxes.

    Args:
        boxes: one `{"x", "y", "width", "height"}` in pixels of the canvas, or `{"bbox": [top, left, bottom, right]}` in
            thousandths of it, a list of them, or one list per picture. `desc`, there or in `metadata`, names a person.
        canvas: size of the picture in pixels.
        edges: how regions are made from the boxes.
        boxes_canvas: size of the canvas that the boxes were drawn on, if it is known.
    Raises:
        InvalidInputError: it is none of these, or the boxes were drawn on a canvas of another size.
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
    if boxes_canvas is not None and boxes_canvas != canvas and any(_is_in_pixels(box) for box in listed):
        raise InvalidInputError(
            f"the boxes were drawn on a canvas of {boxes_canvas}, but the picture of the cast is {canvas}: set width "
            f"and height to {canvas} in the node that draws the boxes and draw them again, or set the cast's picture "
            f"to {boxes_canvas}"
        )
    marks = [
        _Mark(f"box {number}", _read_box(box, number, canvas), name=_box_name(box))
        for number, box in enumerate(listed, 1)
    ]
    for mark in marks:
        _check_box_is_on_canvas(mark, canvas)
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
            places.append(Place(mark.label, None, problem="the skeleton does not show its head", name=mark.name))
            continue
        face_box = mark.box.normalised(extent)
        region = Region.from_box(face_box, grow=edges.grow, feather=edges.feather)
        problem = "" if region else _box_problem(mark.box, extent)
        place = Place(mark.label, region, face_box=face_box, embeddings=mark.embeddings)
        places.append(replace(place, problem=problem, name=mark.name))
    return tuple(places)


def _box_problem(box: Box, extent: Extent) -> str:
    size = f"{box.width:.0f}x{box.height:.0f} at ({box.x0:.0f}, {box.y0:.0f})"
    return f"it is empty ({size})" if box.area <= 0 else f"{size} is outside the {extent} picture"


def _check_box_is_on_canvas(mark: _Mark, canvas: Extent) -> None:
    """Raises InvalidInputError if most of a box is outside the canvas: it belongs to a larger one."""
    if mark.box is None or Box(0, 0, canvas.width, canvas.height).contains(mark.box.center):
        return
    name = f" ({mark.name})" if mark.name else ""
    raise InvalidInputError(
        f"{mark.label}{name} is at ({mark.box.x0:.0f}, {mark.box.y0:.0f}) to ({mark.box.x1:.0f}, {mark.box.y1:.0f}), "
        f"outside the picture of {canvas}: the boxes were drawn on a larger canvas; set width and height to the same "
        "values in both nodes, those of the picture"
    )


def _is_in_pixels(box: object) -> bool:
    return not isinstance(box, Mapping) or "bbox" not in box


def _box_name(box: object) -> str:
    """Returns whom a box is for: its own `desc`, or that of its `metadata`; empty if it has none."""
    fields = cast("Mapping[str, Any]", box)
    metadata = fields.get("metadata")
    described = cast("Mapping[str, Any]", metadata) if isinstance(metadata, Mapping) else fields
    return str(described.get("desc") or "").strip()


def _read_box(box: object, number: int, canvas: Extent) -> Box:
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", box) if isinstance(box, Mapping) else {}
    try:
        if "bbox" in fields:
            top, left, bottom, right = (float(side) / 1000 for side in fields["bbox"])
            sides = Box(left, top, right, bottom).scaled(canvas.width, canvas.height)
        else:
            x, y, width, height = (float(fields[key]) for key in ("x", "y", "width", "height"))
            sides = Box(x, y, x + width, y + height)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"box {number} is {shortened(f'{box!r}')}; a box needs the numbers x, y, width and height"
        ) from error
    if not all(map(math.isfinite, (sides.x0, sides.y0, sides.x1, sides.y1))):
        raise InvalidInputError(f"box {number} is {shortened(f'{box!r}')}; x, y, width and height must be finite")
    return sides


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
