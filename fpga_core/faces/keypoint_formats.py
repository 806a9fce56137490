"""Reads the FACE_LANDMARKS and POSE_KEYPOINT values of ComfyUI's own detectors as faces and bodies.

FACE_LANDMARKS (MediaPipe nodes): `{"frames": [[face, ...], ...], "image_size": (height, width)}`, one frame per
picture; a face has `landmarks_xy` (478, 2) and `bbox_xyxy` (4,), both in pixels, and `score`.

POSE_KEYPOINT (SDPose, and the OpenPose and DWPose preprocessors): one dictionary per picture in OpenPose's JSON format,
`{"canvas_width", "canvas_height", "people": [{"pose_keypoints_2d", "face_keypoints_2d", ...}]}`, each list flat x, y,
confidence. Some programs write pixels of the canvas, and others fractions of it. Absent lists are None, empty or
missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, ShapeMismatchError
from ..geometry import Box
from ..shapes import Extent
from .face import Body, Face, PictureFaces
from .landmarks import check_landmarks, face_outline
from .skeleton import FROM_BODY_25, NUM_KEYPOINTS

MIN_CONFIDENCE = 0.3
"""Points with a lower confidence count as not seen. This is the threshold of DWPose and SDPose."""

NUM_FACE_POINTS = 68

LARGEST = 1e6
"""Larger than any coordinate of a picture, in pixels."""


def read_face_landmarks(payload: object, pictures: Sequence[Extent]) -> tuple[PictureFaces, ...]:
    """Reads the faces from a FACE_LANDMARKS socket.

    Args:
        payload: the output of `MediaPipeFaceLandmarker`.
        pictures: sizes of the pictures; coordinates are scaled to them.
    Returns:
        One entry per picture. A single frame serves all pictures.
    Raises:
        InvalidInputError: the payload is malformed.
        ShapeMismatchError: the number or aspect ratio of the frames does not match the pictures.
    """
    frames = _field(payload, "frames", "FACE_LANDMARKS")
    height, width = _numbers(_field(payload, "image_size", "FACE_LANDMARKS"), "image_size of FACE_LANDMARKS", (2,))
    canvas = _canvas(width, height, "FACE_LANDMARKS")
    found: list[PictureFaces] = []
    for frame, picture in zip(_frames_for(frames, len(pictures), "FACE_LANDMARKS"), pictures, strict=True):
        scale = _scale(canvas, picture, "FACE_LANDMARKS")
        found.append(PictureFaces(picture, tuple(_mesh_face(face, scale) for face in _sequence(frame, "a frame"))))
    return tuple(found)


def read_pose_keypoints(payload: object, pictures: Sequence[Extent]) -> tuple[PictureFaces, ...]:
    """Reads faces and bodies from a POSE_KEYPOINT socket.

    Args:
        payload: one frame in OpenPose's format, or a list of them.
        pictures: sizes of the pictures; coordinates are scaled to them.
    Returns:
        One entry per picture: every body, and the 68-point faces of which at least half the points were seen (the
        others are NaN). A single frame serves all pictures.
    Raises:
        InvalidInputError: the payload is malformed.
        ShapeMismatchError: the number or aspect ratio of the frames does not match the pictures.
    """
    listed = [cast(object, payload)] if isinstance(payload, Mapping) else payload
    frames = _frames_for(listed, len(pictures), "POSE_KEYPOINT")
    return tuple(_read_frame(frame, picture) for frame, picture in zip(frames, pictures, strict=True))


def faces_and_bodies(faces: Sequence[PictureFaces] | None, pose_keypoints: object = None) -> Sequence[PictureFaces]:
    """Returns faces with the bodies of a POSE_KEYPOINT socket (one frame per picture, or one for all).

    Args:
        faces: one entry per picture; None: the pose's own faces and bodies, in pixels of its canvas.
        pose_keypoints: the value of the socket; None: the faces keep the bodies that they have.
    Raises:
        InvalidInputError: both are None, or the pose is malformed.
        ShapeMismatchError: as in `read_pose_keypoints`.
    """
    if faces is None and pose_keypoints is None:
        raise InvalidInputError("there is nothing to draw; connect faces, a skeleton, or both")
    if faces is None:
        frames = [cast(object, pose_keypoints)] if isinstance(pose_keypoints, Mapping) else pose_keypoints
        sizes = [_frame_size(frame) for frame in _sequence(frames, "frames of POSE_KEYPOINT")]
        return read_pose_keypoints(cast(object, pose_keypoints), sizes)
    if pose_keypoints is None:
        return faces
    poses = read_pose_keypoints(pose_keypoints, [picture.extent for picture in faces])
    return tuple(replace(picture, bodies=pose.bodies) for picture, pose in zip(faces, poses, strict=True))


def _mesh_face(face: object, scale: np.ndarray) -> Face:
    source = "a face of FACE_LANDMARKS"
    landmarks = _numbers(_field(face, "landmarks_xy", source), "landmarks_xy")
    check_landmarks(landmarks)
    box = _numbers(_field(face, "bbox_xyxy", source), "bbox_xyxy", (4,)) * np.tile(scale, 2)
    score = _numbers(_field(face, "score", source), "score", ())
    return Face(Box(*box.tolist()), float(score), (landmarks * scale).astype(np.float32))


def _read_frame(frame: object, picture: Extent) -> PictureFaces:
    source = "a frame of POSE_KEYPOINT"
    canvas = _frame_size(frame)
    people = _sequence(_field(frame, "people", source), "people")
    body_points = [_triples(person, "pose_keypoints_2d", (18, 25)) for person in people]
    face_points = [_triples(person, "face_keypoints_2d", (68, 70)) for person in people]
    seen = [points[points[:, 2] > 0, :2] for points in (*body_points, *face_points) if points is not None]
    is_normalised = all(np.abs(points).max(initial=0) <= 2 for points in seen)  # a body does not fit into two pixels
    scale = _scale(canvas, picture, source)
    if is_normalised:
        scale = scale * (canvas.width, canvas.height)
    bodies = [_body(points, scale) for points in body_points if points is not None]
    faces = [_pose_face(points, scale) for points in face_points if points is not None]
    return PictureFaces(picture, tuple(face for face in faces if face is not None), tuple(bodies))


def _frame_size(frame: object) -> Extent:
    source = "a frame of POSE_KEYPOINT"
    size = [_field(frame, "canvas_width", source), _field(frame, "canvas_height", source)]
    width, height = _numbers(size, "canvas size of POSE_KEYPOINT", (2,))
    return _canvas(width, height, source)


def _body(points: np.ndarray, scale: np.ndarray) -> Body:
    if len(points) != NUM_KEYPOINTS:
        points = points[list(FROM_BODY_25)]
    return Body(np.concatenate([points[:, :2] * scale, points[:, 2:]], axis=1).astype(np.float32))


def _pose_face(points: np.ndarray, scale: np.ndarray) -> Face | None:
    points = points[:NUM_FACE_POINTS]  # the 70-point form repeats the body's eyes at the end
    is_seen = points[:, 2] >= MIN_CONFIDENCE
    if is_seen.sum() * 2 < NUM_FACE_POINTS:
        return None
    landmarks = np.where(is_seen[:, None], points[:, :2] * scale, np.nan).astype(np.float32)
    outline = face_outline(landmarks)
    if outline is None:
        return None
    box = Box(*outline.min(axis=0).tolist(), *outline.max(axis=0).tolist())
    return Face(box, float(points[is_seen, 2].mean()), landmarks)


def _triples(person: object, key: str, counts: tuple[int, int]) -> np.ndarray | None:
    """Returns (num_points, 3) x, y, confidence in [0, 1], which is 0 for an absent point; None for an absent list."""
    if not isinstance(person, Mapping):
        raise InvalidInputError(f"a person in POSE_KEYPOINT is a {type(person).__name__}, not a dictionary")
    listed = cast(Mapping[object, object], person).get(key)
    flat = [] if listed is None else _sequence(listed, key)
    if not flat:
        return None
    if len(flat) not in [3 * count for count in counts]:
        raise InvalidInputError(
            f"{key} has {len(flat)} numbers; expected x, y, confidence for {counts[0]} or {counts[1]} points "
            f"({3 * counts[0]} or {3 * counts[1]} numbers)"
        )
    points = np.array(np.reshape(_numbers(flat, key, (len(flat),)), (-1, 3)), dtype=np.float64)
    points[(points[:, :2] == -1).all(axis=1), 2] = 0  # how SDPose marks a point outside its heat map
    points[:, 2] = points[:, 2].clip(0, 1)
    return points


def _scale(canvas: Extent, picture: Extent, source: str) -> np.ndarray:
    """Returns the (x, y) factors from pixels of the canvas to pixels of the picture.

    The preprocessors of controlnet_aux scale the picture to a short side (a multiple of 64) and pad the long one to
    such a multiple at the right or bottom. Some of them report the padded canvas. In that case, both factors are that
    of the short side.
    """
    factor = min(canvas.width, canvas.height) / min(picture.width, picture.height)
    padded = Extent(*(64 * math.ceil(round(side * factor) / 64) for side in (picture.width, picture.height)))
    if canvas == padded:
        return np.array([1 / factor, 1 / factor])
    if not picture.has_aspect_of(canvas):
        raise ShapeMismatchError(
            f"{source} belongs to a {canvas} picture, but the image is {picture}: connect the image that it was "
            "detected in"
        )
    return np.array([picture.width / canvas.width, picture.height / canvas.height])


def _frames_for(payload: object, num_pictures: int, socket: str) -> list[object]:
    frames = _sequence(payload, f"frames of {socket}")
    if len(frames) == 1:
        return frames * num_pictures
    if len(frames) != num_pictures:
        raise ShapeMismatchError(
            f"{socket} holds {len(frames)} frames, but the batch has {num_pictures} pictures; detect in the same "
            "batch, or in one picture to use its frame for all"
        )
    return frames


def _canvas(width: float, height: float, source: str) -> Extent:
    if min(width, height) < 1:
        raise InvalidInputError(
            f"{source} gives a picture size of {width:g}x{height:g} pixels; each side must be at least 1"
        )
    return Extent(round(width), round(height))


def _field(mapping: object, key: str, source: str) -> object:
    if not isinstance(mapping, Mapping):
        raise InvalidInputError(
            f"{source} is a {type(mapping).__name__}, not a dictionary; connect a detector's output"
        )
    fields = cast(Mapping[object, object], mapping)
    if key not in fields:
        raise InvalidInputError(f"{source} has no '{key}' (it has: {', '.join(map(str, fields)) or 'nothing'})")
    return fields[key]


def _sequence(value: object, what: str) -> list[object]:
    is_array = isinstance(value, np.ndarray) and cast(np.ndarray, value).ndim > 0
    if not isinstance(value, (list, tuple)) and not is_array:
        raise InvalidInputError(f"{what} is a {type(cast(object, value)).__name__}, not a list")
    return list(cast(Iterable[object], value))


def _numbers(value: object, what: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{what} holds something that is not a number: {error}") from error
    if shape is not None and numbers.shape != shape:
        raise InvalidInputError(f"{what} has the shape {numbers.shape}, expected {shape}")
    if not (np.abs(numbers) <= LARGEST).all():
        raise InvalidInputError(f"{what} holds a number that is not finite or beyond {LARGEST:g}")
    return numbers
