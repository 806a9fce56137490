"""A mask that its user drew or grew is pasted as it is: whole, and as one piece."""

import cv2
import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.restoration.crops import CropSquare
from fpga.fpga_core.restoration.face_crops import FaceCrop, crop_faces, stack_crops
from fpga.fpga_core.restoration.paste import lay_faces, paste_crops
from fpga.fpga_core.restoration.settings import CropSettings
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.painter import paint
from fpga.laboratory.scenes import Shot, random_scene
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

SIZE = 64


def num_pieces(mask: torch.Tensor) -> int:
    return cv2.connectedComponents((mask > 0).numpy().astype(np.uint8))[0] - 1


@pytest.mark.parametrize("grown_px", [0, 16, 32, 64])
def test_an_edited_mask_is_pasted_without_holes(grown_px):
    scene = random_scene(np.random.default_rng(3), Shot.FULL)
    picture = torch.from_numpy(paint(scene, 512)).float()[None] / 255
    faces = crop_faces(picture, [scene.faces(Extent(512, 512))], CropSettings(size_limit_px=0))
    crops, masks = stack_crops(faces, 512)
    if grown_px:
        masks = functional.max_pool2d(masks[:, None], 2 * grown_px + 1, 1, grown_px)[:, 0]
    _, changed = paste_crops(picture, faces, torch.ones_like(crops), masks=masks, are_colors_matched=False)
    assert num_pieces(changed[0]) == 1
    assert num_pieces(changed[0] == 0) == 1  # nor is there a hole in it


def walk(seed: int, width: int, length: int) -> torch.Tensor:
    """A stroke of a pen that wanders about: blobs with wide pens, thin shapes with narrow ones; one piece."""
    generator, mask = np.random.default_rng(seed), np.zeros((SIZE, SIZE), np.uint8)
    points = (np.cumsum(generator.integers(-9, 10, (length, 2)), axis=0) + SIZE // 2).clip(2, SIZE - 3)
    for start, end in zip(points[:-1], points[1:], strict=True):
        cv2.line(mask, start.tolist(), end.tolist(), 1, width)
    return torch.from_numpy(mask).float()


@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 12),
    length=st.integers(2, 12),
    side=st.floats(8, 200),
    angle=st.floats(-4, 4),
    weight=st.floats(0.01, 1),
)
def test_any_mask_of_one_piece_is_pasted_as_one_piece(seed, width, length, side, angle, weight):
    mask = walk(seed, width, length) * weight
    square = CropSquare((150.3, 149.6), side, angle, SIZE)
    face = FaceCrop(
        picture_index=0,
        face_index=0,
        face=Face(Box(140, 140, 160, 160)),
        square=square,
        crop=torch.ones(SIZE, SIZE, 3),
        paste_mask=mask,
        fusion_mask=mask,
        identity_mask=mask,
    )
    picture = torch.zeros(300, 300, 3)
    result, changed = lay_faces(picture, [face])
    assert num_pieces(changed) == 1
    assert torch.equal(result[changed == 0], picture[changed == 0])
    covered = square.to_crop(np.stack(np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5), -1).reshape(-1, 2))
    cells = np.floor(covered).astype(int)
    seen = ((cells >= 0) & (cells < SIZE)).all(axis=1)
    under = torch.zeros(300 * 300)
    under[torch.from_numpy(seen)] = mask[cells[seen, 1], cells[seen, 0]]
    assert bool((changed.flatten()[under > 0] > 0).all())  # whole: no pixel under the mask is spared


@pytest.mark.parametrize("are_colors_matched", [False, True])
@pytest.mark.parametrize("value", [255.0, float("nan"), float("inf"), -255.0])
def test_masks_that_are_none_never_reach_the_picture(are_colors_matched, value):
    """A mask of 0 to 255 made the mean of nothing, and wrote NaN into the picture."""
    scene = random_scene(np.random.default_rng(3), Shot.FULL)
    picture = torch.from_numpy(paint(scene, 256)).float()[None] / 255
    faces = crop_faces(picture, [scene.faces(Extent(256, 256))], CropSettings(size_limit_px=0))
    crops, masks = stack_crops(faces, 64)
    with pytest.raises(InvalidInputError):
        paste_crops(picture, faces, crops, masks=masks * value, are_colors_matched=are_colors_matched)
    slightly = paste_crops(picture, faces, crops, masks=masks * 1.2, are_colors_matched=are_colors_matched)
    clamped = paste_crops(picture, faces, crops, masks=(masks * 1.2).clamp(0, 1), are_colors_matched=are_colors_matched)
    assert torch.equal(slightly[0], clamped[0]) and slightly[0].isfinite().all()
