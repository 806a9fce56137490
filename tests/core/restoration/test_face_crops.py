"""Choosing, cropping, masking and pasting back all faces of a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.faces.drawing import FaceStyle
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.restoration.face_crops import crop_faces, draw_hint, faces_in_crops, stack_crops
from fpga.fpga_core.restoration.masks import MAX_AREA, faces_from_masks, hull_area
from fpga.fpga_core.restoration.matching import Match
from fpga.fpga_core.restoration.paste import paste_crops, paste_faces
from fpga.fpga_core.restoration.settings import CropSettings
from fpga.fpga_core.shapes import Extent

SIZE = 64
SETTINGS = CropSettings(size_px=SIZE, size_limit_px=40)


def images(num: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(num, 90, 120, channels, generator=torch.Generator().manual_seed(0))


def found(*boxes_per_picture) -> tuple[PictureFaces, ...]:
    return tuple(PictureFaces(Extent(120, 90), tuple(Face(Box(*box)) for box in boxes)) for boxes in boxes_per_picture)


FACES = found([(10, 10, 30, 35), (40, 5, 100, 80), (100, 60, 118, 82)], [(50, 40, 70, 66)])


def paste_masks(*args, **kwargs) -> torch.Tensor:
    """Returns the paste mask of each face that is taken."""
    return torch.stack([crop.paste_mask for crop in crop_faces(*args, **kwargs)])


def test_only_small_faces_of_every_picture_are_taken():
    crops = crop_faces(images(), FACES, SETTINGS)
    assert [crop.label for crop in crops] == ["picture 1, face 1", "picture 1, face 3", "picture 2, face 1"]
    assert [(crop.picture_index, crop.face_index) for crop in crops] == [(0, 0), (0, 2), (1, 0)]
    assert all(crop.crop.shape == (SIZE, SIZE, 3) and crop.paste_mask.shape == (SIZE, SIZE) for crop in crops)
    assert len(crop_faces(images(), FACES, CropSettings(size_px=SIZE, size_limit_px=0))) == 4


def test_a_record_knows_its_own_face_match_and_hint():
    """Matches are listed with all faces of their picture, including those that are too large."""
    landmarks = np.random.default_rng(0).uniform((100, 60), (118, 82), (68, 2))
    small, large, third = FACES[0].faces
    third = Face(third.box, landmarks=landmarks)
    faces = (PictureFaces(Extent(120, 90), (small, large, third)), FACES[1])
    matches = ((Match(1, "a"), Match(2, "b"), None), (Match(0, "c"),))
    crops = crop_faces(images(), faces, SETTINGS, matches=matches, hint_style=FaceStyle.OPENPOSE)
    assert [crop.match for crop in crops] == [Match(1, "a"), None, Match(0, "c")]
    assert [crop.face for crop in crops] == [small, third, FACES[1].faces[0]]
    assert [bool(crop.hint.any()) for crop in crops] == [False, True, False]
    drawn = draw_hint(crops[1].face_in_crop, SIZE, FaceStyle.OPENPOSE)
    assert torch.equal(crops[1].hint, drawn) and drawn.shape == (SIZE, SIZE, 3)
    plain = crop_faces(images(), faces, SETTINGS)
    assert [crop.hint for crop in plain] == [crop.match for crop in plain] == [None] * 3


def test_no_face_large_faces_and_faces_outside_give_no_crop():
    large = found([(10, 10, 90, 85)], [(-50, -50, -10, -10)])
    for faces in (found([], []), large):
        crops = crop_faces(images(), faces, SETTINGS)
        assert crops == ()
        blank, masks = stack_crops(crops, SIZE)
        assert blank.shape == (1, SIZE, SIZE, 3) and masks.shape == (1, SIZE, SIZE)
        assert not blank.any() and not masks.any()
        assert [entry.faces for entry in faces_in_crops(crops, SIZE)] == [()]
        result, changed = paste_crops(images(), crops, blank, masks=masks, are_colors_matched=True)
        assert torch.equal(result, images()) and not changed.any()


def test_the_face_is_where_its_crop_says():
    landmarks = np.array([[15.0, 20.0], [25.0, 20.0], [20.0, 24.0], [16.0, 29.0], [24.0, 29.0]])
    faces = (PictureFaces(Extent(120, 90), (Face(Box(10, 10, 30, 35), landmarks=landmarks),)),)
    (crop,) = crop_faces(images(1), faces, SETTINGS)
    face = crop.face_in_crop
    np.testing.assert_allclose(face.landmarks, crop.square.to_crop(landmarks))
    assert face.box.center == pytest.approx(tuple(crop.square.to_crop(np.array([[20.0, 22.5]]))[0]))
    rows, columns = (crop.paste_mask > 0.5).nonzero().T
    assert float(columns.float().mean()) + 0.5 == pytest.approx(face.box.center[0], abs=0.6)
    assert float(rows.float().mean()) + 0.5 == pytest.approx(face.box.center[1], abs=0.6)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("upscale", [1, 2])
def test_pasting_changes_only_the_faces(channels, match, upscale):
    batch = images(channels=channels)
    faces = crop_faces(batch, FACES, SETTINGS)
    crops, masks = stack_crops(faces, SIZE)
    restored = (1 - crops).repeat_interleave(upscale, 1).repeat_interleave(upscale, 2)
    result, changed = paste_crops(batch, faces, restored, masks=masks, are_colors_matched=match)
    assert changed.shape == (2, 90, 120)
    assert torch.equal(result[changed == 0], batch[changed == 0])
    assert torch.equal(result[..., 3:], batch[..., 3:])
    for picture in range(2):
        area = sum(hull_area(crop.face) for crop in faces if crop.picture_index == picture)
        assert 0.9 * area < int((changed[picture] > 0).sum()) <= MAX_AREA * area
    assert float((result - batch)[changed > 0.9].abs().mean()) > (0.02 if match else 0.2)


def test_what_is_pasted_is_the_paste_mask_alone():
    """The other two masks are read elsewhere."""
    faces = [replace(crop, fusion_mask=None, identity_mask=None) for crop in crop_faces(images(), FACES, SETTINGS)]
    crops, masks = stack_crops(faces, SIZE)
    _, changed = paste_crops(images(), faces, 1 - crops, masks=masks, are_colors_matched=True)
    assert changed[0].any() and changed[1].any()
    faces[0] = replace(faces[0], paste_mask=torch.zeros(SIZE, SIZE))
    _, less = paste_faces(images(), faces, are_colors_matched=False)
    assert not less[0, :50].any() and less[0, 60:].any() and torch.equal(less[1], changed[1])


def test_a_parser_decides_what_the_face_is_within_the_limit_of_area():
    seen = []

    def parser(crops):
        assert crops.shape == (1, SIZE, SIZE, 3)
        seen.append(crops)
        masks = torch.zeros(1, SIZE, SIZE)
        if len(seen) == 1:
            masks[:, 25:35, 25:35] = 1
        elif len(seen) == 2:
            masks[:, 3, 3] = 1  # sees only a neighbour's face
        else:
            masks[:] = 1  # claims everything
        return masks

    faces = crop_faces(images(), FACES, SETTINGS, parser=parser)
    crops, masks = stack_crops(faces, SIZE)
    hulls = paste_masks(images(), FACES, SETTINGS)
    assert torch.equal(torch.cat(seen), crops)
    assert float(masks[0, 30, 30]) == 1 and float(masks[0].sum()) < 0.5 * float(hulls[0].sum())
    assert torch.equal(masks[1], hulls[1])
    _, changed = paste_crops(images(), faces, crops, masks=masks, are_colors_matched=False)
    assert int((changed[1] > 0).sum()) <= MAX_AREA * hull_area(faces[2].face)


def test_given_masks_are_used_per_picture_or_per_face_and_without_limit():
    masks = torch.zeros(2, 90, 120)
    masks[0, 5:50, 5:50] = 1
    masks[1, 45:50, 55:60] = 1
    crops = crop_faces(images(), FACES, SETTINGS, masks=masks)
    _, soft = stack_crops(crops, SIZE)
    assert float(soft[0].mean()) > 0.8 and not soft[1].any() and 0 < float(soft[2].mean()) < 0.2
    per_face = torch.zeros(3, 90, 120)
    per_face[1] = 1
    soft = paste_masks(images(), FACES, SETTINGS, masks=per_face)
    assert [float(mask.mean()) for mask in soft] == [0.0, 1.0, 0.0]
    assert paste_masks(images(), FACES, SETTINGS, masks=torch.ones(1, 90, 120)).all()


def test_masks_of_all_faces_serve_those_that_are_taken():
    """Detect Faces gives a mask for every face; the large one is not taken."""
    every = torch.zeros(4, 90, 120)
    every[2] = 1
    soft = paste_masks(images(), FACES, SETTINGS, masks=every)
    assert [float(mask.mean()) for mask in soft] == [0.0, 1.0, 0.0]


def test_faces_that_masks_show_are_taken_by_their_own_masks():
    """One of the masks is empty, and one belongs to a face that is too large."""
    drawn = torch.zeros(4, 90, 120)
    drawn[0, 10:30, 20:50] = drawn[2, 5:85, 30:100] = drawn[3, 40:45, 60:61] = 1
    first, second = crop_faces(images(1), faces_from_masks(drawn, images(1)), SETTINGS, masks=drawn)
    assert (first.face.box, second.face.box) == (Box(20, 10, 50, 30), Box(60, 40, 61, 45))
    assert float(first.paste_mask.mean()) > 0.2 and float(second.paste_mask.mean()) > 0.03


@pytest.mark.parametrize("shape", [(90, 120), (1, 1, 90, 120), (1, 45, 60), (1, 180, 240)])
def test_masks_of_any_size_and_layout(shape):
    height, width = shape[-2:]
    mask = torch.zeros(shape)
    mask[..., : height // 2, :] = 1
    half = (torch.arange(90) < 45)[None, :, None].expand(1, 90, 120)
    whole = paste_masks(images(), FACES, SETTINGS, masks=half)
    soft = paste_masks(images(), FACES, SETTINGS, masks=mask)
    assert float((soft - whole).abs().mean()) < 0.02


def test_greys_of_a_given_mask_are_kept_where_nothing_is_to_be_grown():
    settings = CropSettings(size_px=SIZE, size_limit_px=40, mask_grow=0, mask_feather=0)
    soft = paste_masks(images(), FACES, settings, masks=torch.full((1, 90, 120), 0.3))
    torch.testing.assert_close(soft, torch.full((3, SIZE, SIZE), 0.3))


def test_masks_alone_say_where_faces_are():
    masks = torch.zeros(3, 90, 120)
    masks[0, 10:30, 20:50] = 1
    masks[2, 40:45, 60:61] = 1
    (picture,) = faces_from_masks(masks, images(1))
    assert [face.box for face in picture.faces] == [Box(20, 10, 50, 30), Box(60, 40, 61, 45)]
    one_each = faces_from_masks(masks, images(3))
    assert [len(entry.faces) for entry in one_each] == [1, 0, 1]
    with pytest.raises(ShapeMismatchError, match="3 masks cannot be assigned to 2 pictures"):
        faces_from_masks(masks, images(2))
    with pytest.raises(ShapeMismatchError, match="masks with the aspect ratio of the pictures"):
        faces_from_masks(masks[:, :50], images(3))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: crop_faces(torch.rand(90, 120, 3), FACES, SETTINGS), InvalidInputError, "connect an IMAGE"),
        (
            lambda: crop_faces(images(3), FACES, SETTINGS),
            ShapeMismatchError,
            "the faces belong to a batch of 2, but the images are a batch of 3",
        ),
        (
            lambda: crop_faces(images()[:, :80], FACES, SETTINGS),
            ShapeMismatchError,
            "at 120x90, but the picture is 120x80",
        ),
        (
            lambda: crop_faces(images(), FACES, SETTINGS, masks=torch.ones(5, 90, 120)),
            ShapeMismatchError,
            "5 masks are connected",
        ),
        (
            lambda: crop_faces(images(), FACES, SETTINGS, masks=torch.ones(2, 9, 9)),
            ShapeMismatchError,
            "aspect ratio",
        ),
        (lambda: CropSettings(size_px=100), InvalidInputError, "multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_crops_must_come_back_complete_and_square():
    faces = crop_faces(images(), FACES, SETTINGS)
    crops, masks = stack_crops(faces, SIZE)

    def paste(images_, restored):
        paste_crops(images_, faces, restored, masks=masks, are_colors_matched=False)

    with pytest.raises(
        ShapeMismatchError,
        match="3 faces were cropped, but there are 2 crops and 3 masks to paste; to `crops`, connect all",
    ):
        paste(images(), crops[:2])
    with pytest.raises(ShapeMismatchError, match="both must stay square"):
        paste(images(), crops[:, :50])
    with pytest.raises(InvalidInputError, match="not finite.*run it in float32"):
        paste(images(), crops * float("nan"))
    with pytest.raises(ShapeMismatchError, match="from more pictures than the 1"):
        paste(images(1), crops)
