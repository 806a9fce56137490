"""Finds the faces in a batch of images, from one of several sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..errors import InvalidInputError
from ..shapes import Extent
from .face import FaceAnalyzer, PictureFaces
from .keypoint_formats import read_face_landmarks, read_pose_keypoints
from .ordering import FaceOrder, select_faces
from .seeing import find_faces

SOURCES = ("face_analysis", "face_landmarks", "pose_keypoints")


def detect_faces(
    pictures: Sequence[np.ndarray],
    face_analysis: FaceAnalyzer | None = None,
    *,
    face_landmarks: object = None,
    pose_keypoints: object = None,
    order: FaceOrder = FaceOrder.LARGEST_FIRST,
    min_size_px: float = 0,
) -> tuple[PictureFaces, ...]:
    """Returns the faces (and bodies, from a pose) of each picture, from exactly one source.

    Args:
        pictures: (height, width, 3) uint8 RGB.
        face_analysis: finds the faces in the pictures.
        face_landmarks: FACE_LANDMARKS of ComfyUI's MediaPipe nodes.
        pose_keypoints: POSE_KEYPOINT of SDPose or an OpenPose preprocessor.
        order: order of the faces of each picture.
        min_size_px: faces whose longer side is shorter are left out, and so are faces outside the picture.
    Returns:
        One entry per picture; no faces if none is seen.
    Raises:
        InvalidInputError: none or several sources are given, or a source is malformed.
        DetectionError: the face analysis fails, or delivers what cannot be a face.
    """
    sources = (face_analysis, face_landmarks, pose_keypoints)
    problem = source_problem([name for name, source in zip(SOURCES, sources, strict=True) if source is not None])
    if problem:
        raise InvalidInputError(problem)
    extents = [Extent(picture.shape[1], picture.shape[0]) for picture in pictures]
    if face_analysis is not None:
        seen = find_faces(face_analysis, pictures)
        found = tuple(PictureFaces(extent, tuple(faces)) for extent, faces in zip(extents, seen, strict=True))
    elif face_landmarks is not None:
        found = read_face_landmarks(face_landmarks, extents)
    else:
        found = read_pose_keypoints(pose_keypoints, extents)
    return tuple(_selected(picture, order, min_size_px) for picture in found)


def _selected(picture: PictureFaces, order: FaceOrder, min_size_px: float) -> PictureFaces:
    inside = [face for face in picture.faces if face.box.clipped(picture.extent).area > 0]
    return replace(picture, faces=select_faces(inside, order, min_size_px))


def source_problem(connected: Sequence[str]) -> str | None:
    """Returns a message for the user unless exactly one of the three sources is connected."""
    if len(connected) == 1:
        return None
    given = f"{' and '.join(connected)} are connected" if connected else "none is connected"
    return f"connect exactly one of {', '.join(SOURCES)}: {given}"


def as_pictures(image: torch.Tensor) -> list[np.ndarray]:
    """Converts a ComfyUI IMAGE to pictures for detectors.

    Args:
        image: (batch, height, width, channels) float in [0, 1]; 1 (grey), 3, or 4 channels (alpha is dropped).
    Returns:
        (height, width, 3) uint8 RGB each.
    Raises:
        InvalidInputError: the tensor is not an image, or is empty.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or image.numel() == 0:
        raise InvalidInputError(f"expected images (batch, height, width, 1, 3 or 4 channels), got {tuple(image.shape)}")
    rgb = image[..., :3].expand(-1, -1, -1, 3)  # grey is repeated
    pixels = rgb.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return list(pixels.cpu().numpy())
