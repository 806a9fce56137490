"""Sees the person of a picture: faces, landmarks, embedding, body, and the window that will be cut."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...fpga_core.boundaries import guarded
from ...fpga_core.dataset.framing import frame_face
from ...fpga_core.errors import FPGAError, TrainingDataError
from ...fpga_core.faces.face import Body, Face, FaceAnalyzer, PictureFaces
from ...fpga_core.faces.insightface_pack import load_insightface_pack
from ...fpga_core.faces.keypoint_formats import MIN_CONFIDENCE, read_pose_keypoints
from ...fpga_core.faces.landmarks import as_ibug68
from ...fpga_core.faces.pose_network import PoseNetwork, load_pose_network
from ...fpga_core.faces.seeing import EMBEDDING_DIM, find_faces
from ...fpga_core.geometry import Box
from ...fpga_core.shapes import Extent
from ...fpga_core.training.data.pictures import read_picture
from .places import read_place
from .tasks import REAL, REALS, TEXT, Row, Rows

FACE_ANALYSIS, POSE_MODEL = "face_analysis", "pose_model"
GIVES = {
    "fault_step": TEXT,
    "fault": TEXT,
    "face_sizes": REALS,
    "face_box": REALS,
    "face_score": REAL,
    "landmarks": REALS,
    "embedding": REALS,
    "body": REALS,
    "window": REALS,
}
MIN_SEEN = 3
"""Key points that a skeleton has at least: fewer do not make a limb."""


@dataclass(frozen=True)
class Seeing:
    """The models that see people.

    Attributes:
        target: the size of the set's pictures.
        analysis: finds faces; None: they are in the given key points.
        pose: finds bodies; None: they are given.
    """

    target: Extent
    analysis: FaceAnalyzer | None
    pose: PoseNetwork | None

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        return [self.see(row["place"], json.loads(row["given"])) for row in rows]

    def see(self, place: str, given: dict[str, Any]) -> Row:
        """Returns what a picture shows; `fault_step` and `fault` say what is missing."""
        seen: Row = dict.fromkeys(GIVES)
        try:
            picture = read_picture(read_place(place), is_mask=False)
            pose = given_pose(given, picture)
            faces = pose.faces if self.analysis is None else find_faces(self.analysis, [picture])[0]
        except FPGAError as error:
            return seen | {"fault_step": "decoding", "fault": str(error)}
        seen["face_sizes"] = sorted((face.size_px for face in faces), reverse=True)
        if not faces:
            return seen
        face = max(faces, key=lambda face: face.size_px)
        landmarks = landmarks_of(face, pose)
        seen |= {"face_box": [face.box.x0, face.box.y0, face.box.x1, face.box.y1], "face_score": face.score}
        if landmarks is None:
            return seen | {"fault_step": "landmarks", "fault": "not all of the 68 points of the face were found"}
        seen["landmarks"] = landmarks.ravel().tolist()
        window = frame_face(pose.extent, whole_face(face.box, landmarks), self.target)
        if window is None:
            fault = f"no window of {self.target} in the picture of {pose.extent} holds the whole face"
            return seen | {"fault_step": "framing", "fault": fault}
        seen["window"] = [window.x0, window.y0, window.x1, window.y1]
        try:
            embedding = self._embedding(face, given)
            body = nearest_body(pose.bodies, face) if pose.bodies else self._body(picture, window)
        except FPGAError as error:
            return seen | {"fault_step": "decoding", "fault": str(error)}
        seen["embedding"] = None if embedding is None else embedding.tolist()
        if body is None or (body.keypoints[:, 2] >= MIN_CONFIDENCE).sum() < MIN_SEEN:
            missing = "none is given, and there is no --pose-model" if body is None else "too few points are seen"
            return seen | {"fault_step": "skeleton", "fault": missing}
        return seen | {"body": body.keypoints.ravel().tolist()}

    def _embedding(self, face: Face, given: dict[str, Any]) -> np.ndarray | None:
        if self.analysis is not None and self.analysis.recogniser is not None:
            return face.embeddings.get(self.analysis.recogniser)
        return given_embedding(given) if "embedding_at" in given else None

    def _body(self, picture: np.ndarray, window: Box) -> Body | None:
        if self.pose is None:
            return None
        x0, y0 = int(window.x0), int(window.y0)
        body = self.pose(picture[y0 : int(window.y1), x0 : int(window.x1)])
        return Body(body.keypoints + np.array([x0, y0, 0], np.float32))


def open_task(settings: dict[str, Any]) -> Rows:
    analysis, pose = settings.get(FACE_ANALYSIS), settings.get(POSE_MODEL)
    return Seeing(
        Extent(*settings["size"]),
        None if analysis is None else load_insightface_pack(Path(analysis)),
        None if pose is None else load_pose_network(Path(pose)),
    )


def given_pose(given: dict[str, Any], picture: np.ndarray) -> PictureFaces:
    """Returns the faces and bodies of the key points that are given with a picture.

    Raises:
        TrainingDataError, InvalidInputError: they cannot be read, or belong to another picture.
    """
    extent = Extent(picture.shape[1], picture.shape[0])
    if "pose_at" not in given:
        return PictureFaces(extent)
    with guarded(TrainingDataError, "its key points cannot be read", advice="save them in OpenPose's JSON format"):
        payload = json.loads(read_place(given["pose_at"]))
        if isinstance(payload, dict):  # OpenPose itself writes no size
            payload = {"canvas_width": extent.width, "canvas_height": extent.height, **payload}
    return read_pose_keypoints(payload, [extent])[0]


def given_embedding(given: dict[str, Any]) -> np.ndarray:
    with guarded(TrainingDataError, "its embedding cannot be read", advice="save it with numpy.save"):
        embedding = np.load(io.BytesIO(read_place(given["embedding_at"])), allow_pickle=False)
        embedding = np.asarray(embedding, np.float32)
    if embedding.shape != (EMBEDDING_DIM,) or not np.isfinite(embedding).all() or not embedding.any():
        raise TrainingDataError(f"its embedding is {embedding.shape}; it must be ({EMBEDDING_DIM},) finite numbers")
    return embedding


def landmarks_of(face: Face, pose: PictureFaces) -> np.ndarray | None:
    """Returns the 68 landmarks of a face, (68, 2): the given ones if there are any; None if a point is missing."""
    given = max(pose.faces, key=lambda other: other.box.iou(face.box), default=None)
    points = face.landmarks if given is None or given.box.iou(face.box) == 0 else given.landmarks
    if points is None or len(points) == 5 or not np.isfinite(points).all():
        return None
    return as_ibug68(points)


def whole_face(box: Box, landmarks: np.ndarray) -> Box:
    """Returns the box of a face and of its landmarks."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return Box(min(box.x0, low[0]), min(box.y0, low[1]), max(box.x1, high[0]), max(box.y1, high[1]))


def nearest_body(bodies: Sequence[Body], face: Face) -> Body:
    """Returns the body whose head is nearest to a face."""

    def distance(body: Body) -> float:
        head = body.keypoints[[0, 14, 15, 16, 17]]
        seen = head[head[:, 2] > 0, :2]
        return float(np.hypot(*(seen.mean(axis=0) - face.box.center))) if len(seen) else np.inf

    return min(bodies, key=distance)
