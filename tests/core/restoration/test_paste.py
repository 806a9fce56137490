"""Pasting: outside the returned mask not a bit changes, over random sizes, borders, batches and overlaps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.restoration.crops import CropSquare, face_square, take_crop
from fpga.fpga_core.restoration.face_crops import FaceCrop
from fpga.fpga_core.restoration.masks import MAX_AREA, draw_hull, face_hull, found_mask, polygon_area
from fpga.fpga_core.restoration.paste import lay_faces, match_colors
from fpga.fpga_core.restoration.settings import CropSettings
from fpga.fpga_core.shapes import Extent
from hypothesis import given
from hypothesis import strategies as st

SIZE = 48
SPREAD_PX = 4
"""Pixels of a picture, across, that a single pixel of a crop may touch where it is pasted: no mask is thinner."""


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def bits(picture: torch.Tensor) -> torch.Tensor:
    return picture.contiguous().view(torch.int32)


def restored(crop: torch.Tensor, mask: torch.Tensor, square: CropSquare) -> FaceCrop:
    """A face whose masks all are the one that is pasted; its box does not count when it is pasted."""
    return FaceCrop(
        picture_index=0,
        face_index=0,
        face=Face(Box(0, 0, 1, 1)),
        square=square,
        crop=crop,
        paste_mask=mask,
        fusion_mask=mask,
        identity_mask=mask,
    )


def restored_face(face: Face, extent: Extent, seed: int = 0, is_upright: bool = False, size_px: int = SIZE) -> FaceCrop:
    square = face_square(face, extent, margin=0.5, is_upright=is_upright, size_px=size_px)
    crop = take_crop(noise(extent.height, extent.width, 3), square)
    settings = CropSettings(size_px=64, mask_grow=0.04, mask_feather=0.08)
    mask = found_mask(crop, face, square, extent=extent, settings=settings, parser=None)
    return restored(noise(size_px, size_px, 3, seed=seed), mask, square)


faces = st.lists(
    st.builds(
        lambda x, y, w, h, angle: (x, y, w, h, angle),
        st.floats(-0.1, 1.1),
        st.floats(-0.1, 1.1),
        st.floats(0.02, 0.8),
        st.floats(0.02, 0.8),
        st.floats(-3, 3),
    ),
    max_size=4,
)


@given(
    width=st.integers(1, 120), height=st.integers(1, 120), boxes=faces, alpha=st.booleans(), is_upright=st.booleans()
)
def test_outside_the_returned_mask_every_bit_is_the_inputs(width, height, boxes, alpha, is_upright):
    extent, picture = Extent(width, height), noise(height, width, 4 if alpha else 3)
    picture[0, 0] = float("nan")
    pasted, area = [], 0.0
    for number, (x, y, w, h, angle) in enumerate(boxes):
        w, h = w * width, h * height
        box = Box(x * width - w / 2, y * height - h / 2, x * width + w / 2, y * height + h / 2)
        eyes = np.array([[math.cos(angle), math.sin(angle)]]) * w / 6
        points = np.concatenate([-eyes, eyes, eyes * 0, -eyes, eyes]) + box.center
        face = Face(box, landmarks=points)
        pasted.append(restored_face(face, extent, number, is_upright=is_upright))
        area += max(MAX_AREA * polygon_area(face_hull(face)), SPREAD_PX * (face.size_px + SPREAD_PX))
    result, mask = lay_faces(picture, pasted)
    assert mask.shape == (height, width) and float(mask.min()) >= 0 and float(mask.max()) <= 1
    assert torch.equal(bits(result)[mask == 0], bits(picture)[mask == 0])
    assert torch.equal(bits(result[..., 3:]), bits(picture[..., 3:]))
    assert int((mask > 0).sum()) <= area
    assert torch.isfinite(result[mask == 1][:, :3]).all()


def covered_by_hull(face: Face, extent: Extent, fine: int = 16) -> torch.Tensor:
    """How much of each pixel lies inside the face's hull, (height, width), from a drawing `fine` times as fine."""
    drawn = draw_hull(face_hull(face) * fine, extent.width * fine)
    return torch.nn.functional.avg_pool2d(drawn[None, None], fine)[0, 0, : extent.height]


@pytest.mark.parametrize(("size", "covered"), [(12, 0.92), (20, 0.99), (40, 0.99), (90, 0.99)])
def test_the_mask_still_covers_the_face(size, covered):
    """The limit of area must not eat into the face itself: nearly all of the hull is replaced completely.

    A pixel at the edge counts by the part of it that lies inside the hull. Of a face of a dozen pixels, a little less
    is covered: its outline alone touches 235 pixels, and the limit, 1.6 times its area of 135, leaves 216.
    """
    face, extent = Face(Box(60, 50, 60 + size, 50 + 1.2 * size)), Extent(200, 200)
    _, mask = lay_faces(noise(200, 200, 3), [restored_face(face, extent, size_px=512)])
    hull = covered_by_hull(face, extent)
    assert float(torch.minimum(mask, hull).sum() / hull.sum()) > covered
    assert int((mask > 0).sum()) <= MAX_AREA * polygon_area(face_hull(face))


def test_inside_a_solid_mask_the_picture_is_the_restored_crop():
    picture, crop = torch.zeros(64, 64, 3), noise(32, 32, 3)
    mask = torch.zeros(32, 32)
    mask[8:24, 8:24] = 1
    result, changed = lay_faces(picture, [restored(crop, mask, CropSquare((30.0, 30.0), 32.0, 0.0, 32))])
    torch.testing.assert_close(result[22:38, 22:38], crop[8:24, 8:24], atol=1e-5, rtol=0)
    assert torch.equal(changed[14:46, 14:46] > 0, mask > 0)


def test_a_soft_mask_mixes_in_proportion():
    picture, crop = torch.full((16, 16, 3), 0.2), torch.full((16, 16, 3), 0.8)
    mask = torch.full((16, 16), 0.25)
    result, changed = lay_faces(picture, [restored(crop, mask, CropSquare((8.0, 8.0), 16.0, 0.0, 16))])
    torch.testing.assert_close(result[2:-2, 2:-2], torch.full((12, 12, 3), 0.35))
    torch.testing.assert_close(changed[2:-2, 2:-2], torch.full((12, 12), 0.25))


def overlapping(seed: int = 0) -> list[FaceCrop]:
    extent = Extent(80, 60)
    boxes = [Box(10, 10, 40, 45), Box(30, 12, 62, 50), Box(35, 20, 60, 40)]
    return [restored_face(Face(box), extent, seed + number) for number, box in enumerate(boxes)]


def test_the_order_of_overlapping_faces_does_not_matter():
    picture, faces = noise(60, 80, 3, seed=9), overlapping()
    forward, mask = lay_faces(picture, faces)
    backward, same_mask = lay_faces(picture, faces[::-1])
    torch.testing.assert_close(forward, backward, atol=1e-6, rtol=0)
    torch.testing.assert_close(mask, same_mask, atol=1e-6, rtol=0)


def test_faces_that_agree_are_not_mixed_with_the_picture_where_they_overlap():
    """Two solid masks over one place: the picture below must be gone entirely, not shine through."""
    faces = [replace(face, crop=torch.full((SIZE, SIZE, 3), 0.7)) for face in overlapping()]
    result, mask = lay_faces(torch.zeros(60, 80, 3), faces)
    assert int((mask > 0.999).sum()) > 800
    torch.testing.assert_close(result[mask > 0.999], torch.full((int((mask > 0.999).sum()), 3), 0.7), atol=2e-3, rtol=0)


def test_a_face_far_away_does_not_change_anothers_result():
    picture, faces = noise(60, 300, 3, seed=4), overlapping()
    far = restored_face(Face(Box(250, 10, 280, 45)), Extent(300, 60), 7)
    alone, alone_mask = lay_faces(picture, faces)
    both, both_mask = lay_faces(picture, [*faces, far])
    assert torch.equal(bits(alone[:, :200]), bits(both[:, :200])) and torch.equal(
        alone_mask[:, :200], both_mask[:, :200]
    )


def test_the_input_is_not_changed_and_no_face_changes_nothing():
    picture = noise(20, 20, 3)
    before = picture.clone()
    lay_faces(picture, [restored_face(Face(Box(5, 5, 15, 15)), Extent(20, 20))])
    assert torch.equal(picture, before)
    result, mask = lay_faces(picture, [])
    assert torch.equal(result, picture) and not mask.any()


def test_colours_are_matched_where_both_show_the_same():
    """A restored crop with a colour cast: measured outside the mask and undone everywhere."""
    original, mask = noise(40, 40, 3) * 0.6 + 0.2, torch.zeros(40, 40)
    mask[10:30, 10:30] = 1
    cast = original * torch.tensor([0.8, 1.0, 0.9]) + torch.tensor([0.05, -0.1, 0.0])
    torch.testing.assert_close(match_colors(cast, original, mask), original, atol=2e-3, rtol=0)
    assert torch.equal(match_colors(cast, original, torch.ones(40, 40)), cast.clamp(0, 1))


def test_one_pixel_picture():
    picture = torch.full((1, 1, 3), 0.5)
    square = face_square(Face(Box(0, 0, 1, 1)), Extent(1, 1), margin=0.0, is_upright=False, size_px=SIZE)
    result, mask = lay_faces(picture, [restored(torch.ones(SIZE, SIZE, 3), torch.ones(SIZE, SIZE), square)])
    torch.testing.assert_close(result, torch.ones(1, 1, 3))
    torch.testing.assert_close(mask, torch.ones(1, 1))


def test_an_8k_picture_costs_only_its_face():
    picture = torch.zeros(4320, 7680, 3)
    face = restored_face(Face(Box(7600, 4200, 7670, 4290)), Extent(7680, 4320))
    crop = take_crop(picture, face.square)
    assert crop.shape == (SIZE, SIZE, 3)
    result, mask = lay_faces(picture, [face])
    assert 0 < int((mask > 0).sum()) < 10_000
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    assert int(rows.min()) > 4150 and int(columns.min()) > 7550
    assert not result[:4150].any() and not result[:, :7550].any()
