"""The outputs of Detect Faces: numbered boxes on the picture, masks, and ComfyUI's bounding boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..packages import OPENCV, importing
from ..shapes import Extent
from .coverage import ConvexPolygon, Ellipse, coverage
from .face import Face, PictureFaces
from .landmarks import face_outline

BOX_COLOR = (255, 200, 0)


def draw_numbers(pictures: Sequence[np.ndarray], found: Sequence[PictureFaces]) -> torch.Tensor:
    """Returns the pictures with a box around each face and its number, which starts at 1 in each picture.

    Args:
        pictures: (height, width, 3) uint8 RGB, all of one size.
        found: their faces.
    Returns:
        (batch, height, width, 3) float32 in [0, 1].
    """
    previews: list[np.ndarray] = []
    for picture, faces in zip(pictures, found, strict=True):
        preview = np.array(picture, order="C")
        for number, face in enumerate(faces.faces, start=1):
            _draw_number(preview, face, number)
        previews.append(preview)
    return torch.as_tensor(np.stack(previews)).float() / 255


def face_masks(found: Sequence[PictureFaces]) -> torch.Tensor:
    """Returns one mask per face in the whole batch, picture by picture.

    A mask fills the outline of the landmarks, forehead included. If only a box or five points are known, it fills
    the ellipse inside the box.

    Returns:
        (num_faces, height, width) float32 in [0, 1]; one empty mask if there is no face at all.
    """
    masks = [_face_mask(face, picture) for picture in found for face in picture.faces]
    if not masks:
        masks = [np.zeros((found[0].extent.height, found[0].extent.width), np.float32)]
    return torch.as_tensor(np.stack(masks))


def bounding_boxes(found: Sequence[PictureFaces]) -> list[list[dict[str, Any]]]:
    """Returns what a BOUNDING_BOX socket carries: a list of boxes per picture, in whole pixels, clipped to it."""
    return [[_bounding_box(face, picture) for face in picture.faces] for picture in found]


def _bounding_box(face: Face, picture: PictureFaces) -> dict[str, Any]:
    box = face.box.clipped(picture.extent)
    x, y = math.floor(box.x0), math.floor(box.y0)
    width, height = math.ceil(box.x1) - x, math.ceil(box.y1) - y
    return {"x": x, "y": y, "width": width, "height": height, "label": "face", "score": face.score}


def _face_mask(face: Face, picture: PictureFaces) -> np.ndarray:
    outline = None if face.landmarks is None else face_outline(face.landmarks)
    if outline is None:
        shape = Ellipse(face.box.center, (face.box.width / 2, face.box.height / 2))
    else:
        shape = ConvexPolygon(outline)
    mask = np.zeros((picture.extent.height, picture.extent.width), np.float32)
    part, covered = coverage(shape, picture.extent)
    mask[part] = covered
    return mask


def _draw_number(preview: np.ndarray, face: Face, number: int) -> None:
    with importing(OPENCV):
        import cv2
    height, width = preview.shape[:2]
    font = cv2.FONT_HERSHEY_SIMPLEX
    stroke = max(round(min(width, height) / 256), 1)
    shown = face.box.clipped(Extent(width, height))  # the number must not outgrow the picture
    scale = max(max(shown.width, shown.height) / 160, min(width, height) / 1024, 0.4)
    x0, y0, x1, y1 = (round(value) for value in (face.box.x0, face.box.y0, face.box.x1, face.box.y1))
    cv2.rectangle(preview, (x0, y0), (x1, y1), BOX_COLOR, thickness=stroke, lineType=cv2.LINE_AA)
    (text_width, text_height), baseline = cv2.getTextSize(str(number), font, scale, 2 * stroke)
    left = min(max(x0, 0), max(width - text_width - 2 * stroke, 0))
    bottom = min(max(y0 + text_height + baseline, text_height + baseline), height)
    corner = (left + text_width + 2 * stroke, bottom - text_height - baseline)
    cv2.rectangle(preview, (left, bottom), corner, BOX_COLOR, cv2.FILLED)
    origin = (left + stroke, bottom - baseline // 2)
    cv2.putText(
        preview,
        str(number),
        origin,
        fontFace=font,
        fontScale=scale,
        color=(0, 0, 0),
        thickness=2 * stroke,
        lineType=cv2.LINE_AA,
    )
