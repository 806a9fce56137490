"""Which faces are restored where masks say what a face is."""

import pytest
import torch
from fpga.fpga_core.faces.preview import face_masks
from fpga.fpga_core.patching.restoration.faces import restore_faces
from fpga.fpga_core.patching.restoration.restorer import FaceRestorer
from fpga.fpga_core.restoration.face_crops import known_faces
from fpga.fpga_core.restoration.settings import CropSettings, InversionSettings, RestoreSettings
from tiny_faces import HEIGHT, WIDTH, face, found, pictures, tiny_vae
from tiny_models import conditioning, tiny_model

CROP = CropSettings(size_px=64, size_limit_px=50)
SETTINGS = RestoreSettings(steps=2, crop=CROP, inversion=InversionSettings(repetitions=0))
SMALL, LARGE = face(20, 20, 24, 30), face(60, 10, 60, 80)


@pytest.fixture(scope="module")
def restore():
    prompts = {"positive": conditioning(1), "negative": conditioning(2)}
    restorer = FaceRestorer(model=tiny_model(), vae=tiny_vae(), settings=SETTINGS, **prompts)

    def run(images, faces, masks):
        with torch.inference_mode():
            return restore_faces(images, faces, restorer, masks=masks)

    return run


def test_the_masks_that_came_with_the_faces(restore):
    images, faces = pictures(2), found((LARGE, SMALL), (SMALL,))
    result = restore(images, faces, face_masks(faces))
    assert result.report.startswith("2 of 3 faces restored")
    inside = result.masks[0, 25:45, 25:40]
    assert inside.all() and torch.equal(result.images[result.masks == 0], images[result.masks == 0])


def test_an_inverted_mask_changes_everything_else(restore):
    images, mask = pictures(), torch.ones(HEIGHT, WIDTH)
    mask[25:45, 24:40] = 0
    result = restore(images, found((SMALL,)), mask)
    assert not result.masks[0, 33:37, 30:34].any() and result.masks[0, 22:26, 22:26].all()
    assert torch.equal(result.images[result.masks == 0], images[result.masks == 0])


def test_a_face_whose_mask_is_empty_is_left_alone(restore):
    images = pictures()
    result = restore(images, found((SMALL,)), torch.zeros(1, HEIGHT, WIDTH))
    assert torch.equal(result.images, images) and "face 1, 30 px: left alone, its mask is empty" in result.report


def test_drawn_masks_of_which_one_is_empty_and_one_too_large(restore):
    images, masks = pictures(), torch.zeros(3, HEIGHT, WIDTH)
    masks[1, 20:50, 20:44] = 1
    masks[2, 10:90, 60:120] = 1
    result = restore(images, known_faces(images, faces=None, face_analysis=None, masks=masks), masks)
    assert result.report.startswith("1 of 2 faces restored")
