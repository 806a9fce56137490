"""Why a picture is left out: the first step that it does not pass, and the figures."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from ...fpga_core.shapes import Extent
from .settings import Thresholds
from .tasks import Row


class Step(str, Enum):
    """The steps in the order in which pictures pass them."""

    DECODING = "decoding"
    RESOLUTION = "resolution"
    CLARITY = "clarity"
    WATERMARK = "watermark"
    CAPTION_SCORE = "caption score"
    REVIEW = "review"
    DUPLICATE = "duplicate"
    FACES = "faces"
    FACE_SCORE = "face score"
    LANDMARKS = "landmarks"
    FRAMING = "framing"
    FACE_SIZE = "face size"
    SKELETON = "skeleton"
    FACE_DUPLICATE = "duplicate face"
    CAPTION = "caption"
    WRITING = "writing"


class Reason(NamedTuple):
    """Why a picture is left out: the step, and what it found."""

    step: Step
    detail: str


def look_fault(row: Row, limits: Thresholds, dropped: Mapping[str, str]) -> Reason | None:
    """Returns why a picture is left out by what it looks like; None if it is not.

    Args:
        row: of the task `look`.
        limits: what it must be.
        dropped: SHA-256 of each picture that the review drops -> by whom.
    """
    if row["fault"] is not None:
        return Reason(Step.DECODING, row["fault"])
    if min(row["width"], row["height"]) < limits.min_side:
        return Reason(Step.RESOLUTION, f"{row['width']}x{row['height']} is smaller than {limits.min_side} pixels")
    if row["clarity"] < limits.min_clarity:
        return Reason(Step.CLARITY, f"the clarity {row['clarity']:.4g} is below {limits.min_clarity:g}")
    if row["watermark"] is not None and row["watermark"] > limits.max_watermark:
        return Reason(Step.WATERMARK, f"{row['watermark']:.4g} is above {limits.max_watermark:g}")
    score, least = row["caption_score"], limits.min_caption_score
    if score is not None and least is not None and score < least:
        return Reason(Step.CAPTION_SCORE, f"{score:.4g} is below {least:g}")
    if row["sha256"] in dropped:
        return Reason(Step.REVIEW, f"dropped by {dropped[row['sha256']]}")
    return None


def counted_faces(row: Row, limits: Thresholds) -> int:
    """Returns how many people a picture shows: faces much smaller than the largest one are not counted."""
    sizes = row["face_sizes"] or []
    return sum(size >= limits.minor_faces * max(sizes) for size in sizes)


def see_fault(row: Row, limits: Thresholds, target: Extent) -> Reason | None:
    """Returns why a picture is left out by whom it shows; None if it is not.

    Args:
        row: of the task `see`.
        limits: what it must be.
        target: the size of the set's pictures.
    """
    if row["fault_step"] == Step.DECODING.value:
        return Reason(Step.DECODING, row["fault"])
    num_faces = counted_faces(row, limits)
    if num_faces == 0:
        return Reason(Step.FACES, "it shows no face")
    if num_faces > 1 and not limits.groups:
        return Reason(Step.FACES, f"it shows {num_faces} faces")
    if row["face_score"] < limits.min_face_score:
        return Reason(Step.FACE_SCORE, f"the score {row['face_score']:.4g} is below {limits.min_face_score:g}")
    if row["fault_step"] is not None and row["window"] is None:
        return Reason(Step(row["fault_step"]), row["fault"])
    if (length := face_length(row, target)) < limits.min_face:
        return Reason(Step.FACE_SIZE, f"the face would be {length:.0f} pixels long; {limits.min_face:g} are needed")
    return None if row["fault_step"] is None else Reason(Step(row["fault_step"]), row["fault"])


def face_length(row: Row, target: Extent) -> float:
    """Returns the longer side of the face in the set's picture, in pixels."""
    return row["face_sizes"][0] * target.width / (row["window"][2] - row["window"][0])
