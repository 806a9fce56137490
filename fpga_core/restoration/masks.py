"""The mask of a face, M_B of Alg. 1: from the user, a parser or an outline, dilated and smoothed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeMismatchError
from ..faces.face import Face, PictureFaces
from ..faces.landmarks import face_outline
from ..packages import OPENCV, importing
from ..shapes import Extent, as_masks
from .crops import CropSquare, take_crop
from .settings import CropSettings

FaceParser = Callable[[Tensor], Tensor]
"""Maps crops, (num_faces, size, size, 3) in [0, 1], to masks of the face in each, (num_faces, size, size), 0 or 1."""

MAX_AREA = 1.6
"""The largest area of a finished mask, including its soft edge, relative to the hull of the face's landmarks."""

_ELLIPSE_CORNERS = 64
_SUBPIXEL_BITS = 4


def fit_masks(masks: Tensor, images: Tensor) -> Tensor:
    """Resamples the user's masks to the size of their pictures.

    Args:
        masks: (num_masks, height, width) in [0, 1], of any size with the aspect ratio of the pictures.
        images: (num_pictures, height, width, channels).
    Returns:
        (num_masks, height, width) float32 on the CPU, finite.
    Raises:
        ShapeMismatchError: the aspect ratio differs, or there are no masks.
    """
    masks = as_masks(masks).cpu().float().nan_to_num(0, 0, 0).clamp(0, 1)
    extent, picture = Extent(masks.shape[2], masks.shape[1]), Extent(images.shape[2], images.shape[1])
    if extent == picture:
        return masks
    if not extent.has_aspect_of(picture):
        raise ShapeMismatchError(
            f"the masks are {extent}, but the pictures are {picture}; connect masks with the aspect ratio of the "
            "pictures (Load Image returns an empty 64x64 mask for a picture without transparency)"
        )
    size = (picture.height, picture.width)
    return functional.interpolate(masks[:, None], size=size, mode="bilinear", antialias=True)[:, 0]


def masks_of_faces(masks: Tensor, faces: Sequence[PictureFaces], taken: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Returns the mask of each face that is taken, in its picture.

    Args:
        masks: (num_masks, height, width): one for all pictures, one per picture, or one per face, either for all faces
            or for those that are taken. If their number fits none of these, empty masks are left out, because an empty
            mask is not a face, as in `faces_from_masks`.
        faces: all faces, one entry per picture.
        taken: index of the picture, and of the face in it.
    Returns:
        (height, width) for each entry of `taken`.
    Raises:
        ShapeMismatchError: the number of masks fits none of these.
    """
    first, num_given = [0, *accumulate(len(entry.faces) for entry in faces)], len(masks)
    num_faces = first[-1]
    own = {
        num_faces: [first[picture] + face for picture, face in taken],
        len(taken): range(len(taken)),
        len(faces): [picture for picture, _ in taken],
        1: [0] * len(taken),
    }
    if num_given not in own:
        masks = masks[masks.flatten(1).amax(dim=1) >= 0.5]
    if len(masks) not in own:
        raise ShapeMismatchError(
            f"{num_given} masks are connected; connect one mask, one per picture ({len(faces)}), or one per face "
            f"({num_faces}, of which {len(taken)} are processed)"
        )
    return [masks[index] for index in own[len(masks)]]


def given_mask(mask: Tensor, face: Face, square: CropSquare, *, settings: CropSettings) -> Tensor:
    """Returns the user's mask in the crop of a face, dilated and smoothed; its grey values stay if it is neither.

    Args:
        mask: (height, width) in [0, 1], on the picture.
    Returns:
        (size, size) float32 in [0, 1].
    """
    seen, face_px = take_crop(mask[..., None], square, mode="bilinear")[..., 0], face.size_px * square.scale
    if settings.mask_grow == settings.mask_feather == 0:
        return seen
    return soften_mask(seen, dilate_px=settings.mask_grow * face_px, feather_px=settings.mask_feather * face_px)


def found_mask(
    crop: Tensor,
    face: Face,
    square: CropSquare,
    *,
    settings: CropSettings,
    max_area_px: float,
    parser: FaceParser | None,
) -> Tensor:
    """Returns the parsed face in its crop, or its outline, dilated and smoothed within the limit of area.

    Args:
        crop: (size, size, 3) in [0, 1].
        max_area_px: the limit in square pixels of the picture.
    Returns:
        (size, size) float32 in [0, 1].
    """
    max_area, face_px = max_area_px * square.scale**2, face.size_px * square.scale
    mask = draw_hull(square.to_crop(face_hull(face)), square.size_px)
    if parser is not None:
        near = soften_mask(mask, dilate_px=growth_within(mask, max_area), feather_px=0)
        parsed = parser(crop[None])[0] * near  # without the face of a neighbour
        mask = parsed if parsed.any() else mask
    return bounded_mask(
        mask,
        dilate_px=settings.mask_grow * face_px,
        feather_px=settings.mask_feather * face_px,
        max_area=max_area,
        slack_px=square.scale + 1,  # pasting spreads an edge by up to a pixel of either grid
    )


def face_hull(face: Face) -> np.ndarray:
    """Returns the outline of a face in pixels of its picture: the convex hull of its landmarks and the forehead.

    Args:
        face: a face with 68 or more landmarks; with fewer, the ellipse in the box replaces the hull.
    Returns:
        (num_corners, 2), x then y.
    """
    outline = None if face.landmarks is None else face_outline(face.landmarks)
    if outline is not None and polygon_area(outline) > 0:
        return outline
    turns = np.linspace(0, 2 * math.pi, _ELLIPSE_CORNERS, endpoint=False)
    directions = np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    return face.box.center + directions * (face.box.width / 2, face.box.height / 2)


def hull_area(face: Face) -> float:
    """Returns the reference area of a face's mask: the convex hull of its landmarks, without the forehead.

    Args:
        face: a face with 68 or more landmarks; with fewer, the ellipse in the box replaces the hull.
    Returns:
        Square pixels of the picture.
    """
    landmarks = face.landmarks
    if landmarks is None or face_outline(landmarks) is None:
        return polygon_area(face_hull(face))
    with importing(OPENCV):
        import cv2
    seen = landmarks[np.isfinite(landmarks).all(axis=1)].astype(np.float32)
    return polygon_area(cv2.convexHull(seen)) or polygon_area(face_hull(face))


def polygon_area(corners: np.ndarray) -> float:
    """Returns the area of a polygon, (num_corners, 2), in square pixels."""
    with importing(OPENCV):
        import cv2
    return float(cv2.contourArea(corners.astype(np.float32)))


def draw_hull(corners: np.ndarray, size_px: int) -> Tensor:
    """Draws a convex polygon filled with ones.

    Args:
        corners: (num_corners, 2) pixels; they can be outside the square.
        size_px: side of the square.
    Returns:
        (size_px, size_px) float32, 0 or 1.
    """
    with importing(OPENCV):
        import cv2
    canvas = np.zeros((size_px, size_px), np.uint8)
    centered = (corners - 0.5) * (
        1 << _SUBPIXEL_BITS
    )  # OpenCV's pixel (0, 0) has its centre at (0, 0), ours at (0.5, 0.5)
    cv2.fillConvexPoly(canvas, np.rint(centered).astype(np.int32), 1, cv2.LINE_8, _SUBPIXEL_BITS)
    return torch.as_tensor(canvas).float()


def soften_mask(mask: Tensor, *, dilate_px: float, feather_px: float) -> Tensor:
    """Dilates a mask and smooths its edge as a Gaussian kernel smooths a straight one.

    The edge falls with the distance to the mask, so that it ends at an exact distance. A blur would reach further.

    Args:
        mask: (height, width); values of at least 0.5 count as inside.
        dilate_px: distance by which the solid part grows.
        feather_px: width of the soft edge beyond it, four deviations of the kernel.
    Returns:
        (height, width) float32: 1 up to `dilate_px` from the mask, exactly 0 beyond `dilate_px + feather_px`.
    """
    inside = (mask >= 0.5).cpu().numpy().astype(np.uint8)
    if not inside.any():
        return torch.zeros(mask.shape)
    with importing(OPENCV):
        import cv2
    to_mask = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    beyond = torch.as_tensor(to_mask) - 0.5 - dilate_px  # the outline runs between two pixels' centres
    deviations = 4 * beyond / max(feather_px, torch.finfo(torch.float32).tiny) - 2
    soft = 0.5 - 0.5 * torch.erf(deviations / math.sqrt(2)) / math.erf(2 / math.sqrt(2))
    return soft.where(beyond < feather_px, 0.0).where(beyond > 0, 1.0)


def growth_within(mask: Tensor, max_area: float) -> float:
    """Returns how far a mask can grow on all sides before its area exceeds a limit.

    Args:
        mask: (height, width); values of at least 0.5 count as inside.
        max_area: the limit in pixels of the mask.
    Returns:
        The distance e in pixels with `A + P e + pi e^2 = max_area` (Steiner's formula, an upper bound of the grown area
        if the mask is not convex); 0 if the mask is already larger.
    """
    inside = (mask >= 0.5).cpu().numpy().astype(np.uint8)
    area = int(inside.sum())
    if area == 0 or area >= max_area:
        return 0.0
    with importing(OPENCV):
        import cv2
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    perimeter = sum(cv2.arcLength(contour, closed=True) for contour in contours)
    perimeter += math.pi  # the contours pass through the centres of the outer pixels, half a pixel inside their edges
    return (math.sqrt(perimeter**2 + 4 * math.pi * (max_area - area)) - perimeter) / (2 * math.pi)


def bounded_mask(mask: Tensor, *, dilate_px: float, feather_px: float, max_area: float, slack_px: float) -> Tensor:
    """Applies `soften_mask` with both widths reduced in proportion, so that the area stays within a limit.

    Args:
        mask, dilate_px, feather_px: as in `soften_mask`.
        max_area: the limit in pixels of the mask.
        slack_px: growth that is left unused for the resampling that follows.
    """
    wanted = dilate_px + feather_px
    allowed = max(growth_within(mask, max_area) - slack_px, 0.0)
    shrink = min(1.0, allowed / wanted) if wanted > 0 else 0.0
    return soften_mask(mask, dilate_px=dilate_px * shrink, feather_px=feather_px * shrink)
