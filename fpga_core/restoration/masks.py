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
from ..geometry import Box
from ..packages import OPENCV, importing
from ..shapes import Extent, as_masks
from .crops import CropSquare, lay_crop, take_crop
from .settings import CropSettings

FaceParser = Callable[[Tensor], Tensor]
"""Maps crops, (num_faces, size, size, 3) in [0, 1], to masks of the face in each, (num_faces, size, size), 0 or 1."""

MAX_AREA = 1.6
"""Area of a mask of the default widths, soft edge included, as a multiple of that of the face's hull (`hull_area`)."""

REACH_TRIES = 12
"""Halvings that find how far the mask of a tiny face may reach."""

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
    masks = as_masks(masks).cpu().float()
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


def faces_from_masks(masks: Tensor, images: Tensor) -> tuple[PictureFaces, ...]:
    """Makes faces from masks, for drawings that no detector understands.

    Args:
        masks: (num_masks, height, width); one for each picture, or all of them for a single picture.
        images: (num_pictures, height, width, channels).
    Returns:
        One entry per picture. The box of a face is that of its mask; an empty mask is not a face.
    Raises:
        ShapeMismatchError: sizes or numbers do not agree.
    """
    masks = fit_masks(masks, images)
    (num_masks, height, width), num_pictures = masks.shape, images.shape[0]
    if num_masks != num_pictures and num_pictures != 1:
        raise ShapeMismatchError(
            f"{num_masks} masks cannot be assigned to {num_pictures} pictures; connect one mask per picture, or faces"
        )
    found: list[list[Face]] = [[] for _ in range(num_pictures)]
    for index, mask in enumerate(masks):
        inside = mask >= 0.5
        rows, columns = inside.any(dim=1).nonzero()[:, 0], inside.any(dim=0).nonzero()[:, 0]
        if len(rows):
            box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            found[index if num_pictures > 1 else 0].append(Face(box))
    return tuple(PictureFaces(Extent(width, height), tuple(faces)) for faces in found)


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
    crop: Tensor, face: Face, square: CropSquare, *, extent: Extent, settings: CropSettings, parser: FaceParser | None
) -> Tensor:
    """What a parser sees of a face in its crop, or else its outline, dilated and smoothed.

    Up to the default widths, it covers at most `MAX_AREA` times the hull of the landmarks where it is pasted: the
    default widths shrink, in proportion, to what that leaves, and smaller ones shrink as much. What is asked for beyond
    the defaults is added in full.

    Args:
        crop: (size, size, 3) in [0, 1].
        extent: of the picture.
    Returns:
        (size, size) float32 in [0, 1].
    """
    max_area_px, face_px = MAX_AREA * hull_area(face), face.size_px * square.scale
    max_area = max_area_px * square.scale**2
    mask = draw_hull(square.to_crop(face_hull(face)), square.size_px)
    if parser is not None:
        near = soften_mask(mask, dilate_px=growth_within(mask, max_area), feather_px=0)
        parsed = as_masks(parser(crop[None]))[0] * near  # without the face of a neighbour
        mask = parsed if parsed.any() else mask
    slack_px = square.scale + 1  # pasting spreads an edge by up to a pixel of either grid
    allowed_px = max(growth_within(mask, max_area) - slack_px, 0.0)
    default_grow, default_feather = CropSettings.mask_grow, CropSettings.mask_feather
    unit_px = min(face_px, allowed_px / (default_grow + default_feather))
    grow_px, feather_px = fitting_widths(
        mask,
        square,
        extent,
        dilate_px=min(settings.mask_grow, default_grow) * unit_px,
        feather_px=min(settings.mask_feather, default_feather) * unit_px,
        max_area_px=max_area_px,
    )
    return soften_mask(
        mask,
        dilate_px=grow_px + max(settings.mask_grow - default_grow, 0.0) * face_px,
        feather_px=feather_px + max(settings.mask_feather - default_feather, 0.0) * face_px,
    )


def fitting_widths(
    mask: Tensor, square: CropSquare, extent: Extent, *, dilate_px: float, feather_px: float, max_area_px: float
) -> tuple[float, float]:
    """Widths with which a mask keeps to a limit where it is pasted: as they are, but for the smallest faces.

    The outline of such a face, spread over whole pixels of the picture, may cover more than the limit by itself. The
    soft edge is given up first, then the outline shrinks.

    Args:
        mask, dilate_px, feather_px: as in `soften_mask`.
        extent: of the picture.
        max_area_px: pixels of the picture that may change.
    Returns:
        dilate_px and feather_px; at least the deepest pixel of the mask is left.
    """

    def widths(reach_px: float) -> tuple[float, float]:
        if reach_px <= 0:
            return reach_px, 0.0
        share = reach_px / (dilate_px + feather_px)
        return dilate_px * share, feather_px * share

    def fits(reach_px: float) -> bool:
        grow_px, soft_px = widths(reach_px)
        soft = soften_mask(mask, dilate_px=grow_px, feather_px=soft_px)
        laid, _ = lay_crop(soft[..., None], square, extent, mode="bilinear")
        return int((laid > 0).sum()) <= max_area_px

    too_far = dilate_px + feather_px
    if fits(too_far):
        return dilate_px, feather_px
    fitting = 1e-3 - float(depth_of(mask).max())
    for _ in range(REACH_TRIES):
        middle = (too_far + fitting) / 2
        too_far, fitting = (too_far, middle) if fits(middle) else (middle, fitting)
    return widths(fitting)


def identity_region(face: Face, square: CropSquare, factor: float) -> Tensor:
    """Where the identity of a face acts in its crop: its hull, scaled about its centre.

    Args:
        factor: 1 = the face itself; the head is about 1.45 times as large.
    Returns:
        (size, size) float32, 0 or 1.
    """
    hull = face_hull(face)
    center = (hull.min(axis=0) + hull.max(axis=0)) / 2
    return draw_hull(square.to_crop(center + factor * (hull - center)), square.size_px)


def widened(mask: Tensor, factor: float) -> Tensor:
    """A mask, (height, width), grown on all sides so that its longer side becomes `factor` times as long."""
    rows, columns = (mask >= 0.5).nonzero(as_tuple=True)
    if len(rows) == 0:
        return torch.zeros(mask.shape)
    longer_px = 1 + max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
    return soften_mask(mask, dilate_px=(factor - 1) / 2 * longer_px, feather_px=0)


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
        dilate_px: distance by which the solid part grows; negative: shrinks.
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
    if dilate_px < 0:
        beyond = torch.where(mask.cpu() >= 0.5, -depth_of(mask) - dilate_px, beyond)
    deviations = 4 * beyond / max(feather_px, torch.finfo(torch.float32).tiny) - 2
    soft = 0.5 - 0.5 * torch.erf(deviations / math.sqrt(2)) / math.erf(2 / math.sqrt(2))
    return soft.where(beyond < feather_px, 0.0).where(beyond > 0, 1.0)


def depth_of(mask: Tensor) -> Tensor:
    """How far each pixel inside a mask, (height, width), lies from its outline, in pixels; 0 or less outside."""
    inside = (mask >= 0.5).cpu().numpy().astype(np.uint8)
    with importing(OPENCV):
        import cv2
    return torch.as_tensor(cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)) - 0.5


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
