"""What training reads from pictures of every mode and format, and what it leaves out."""

import io
import subprocess

import numpy as np
import pytest
from fpga.fpga_core.errors import TrainingDataError
from fpga.fpga_core.training.data.pictures import read_picture
from fpga.fpga_core.training.data.reading import TrainingSet
from fpga.fpga_core.training.data.samples import SampleFiles, split_name
from fpga.fpga_core.training.data.writing import ShardWriter
from PIL import Image
from training_samples import random_sample, write_samples

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
FACE = np.zeros((64, 64), np.uint8)
FACE[16:48, 16:48] = 255
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)
HALF = np.full((64, 64), 128, np.uint8)


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def png(array) -> bytes:
    return encoded(Image.fromarray(array))


def decoded(**changed):
    picture = png(np.stack([RAMP] * 3, -1))
    files = {
        "image.png": picture,
        "caption.txt": b"x",
        "skeleton.png": picture,
        "face.png": picture,
        "landmarks.png": picture,
        "mask.png": png(FACE),
    }
    return SampleFiles.from_contents("key", {**files, **changed}).decode()


def test_a_16_bit_grey_picture_keeps_its_brightness():
    assert abs(decoded(**{"image.png": png(RAMP.astype(np.uint16) * 257)}).image.mean() - RAMP.mean()) < 1


def test_a_16_bit_mask_keeps_its_faint_edge_faint():
    mask = FACE.astype(np.uint16) * 257
    mask[12:16, 16:48] = 1000
    assert (decoded(**{"mask.png": png(mask)}).mask == 255).sum() == 32 * 32


def test_a_mask_painted_white_on_transparent_is_what_is_painted():
    mask = np.dstack([np.full((64, 64, 3), 255, np.uint8), FACE])
    assert (decoded(**{"mask.png": png(mask)}).mask > 0).sum() == 32 * 32


def palette_with_transparency() -> bytes:
    picture = Image.fromarray((FACE // 255).astype(np.uint8), "P")
    picture.putpalette([9, 9, 9, 255, 255, 255])
    return encoded(picture, transparency=0)


GREY = np.stack([RAMP] * 3, -1)
MODES = {
    "1": (encoded(Image.fromarray(FACE).convert("1")), np.stack([FACE] * 3, -1), 0),
    "L": (png(RAMP), GREY, 0),
    "L, one value transparent": (encoded(Image.fromarray(FACE), transparency=255), np.zeros((64, 64, 3)), 0),
    "LA": (png(np.dstack([RAMP, HALF])), GREY / 2, 1),
    "P": (encoded(Image.fromarray(RAMP).convert("P")), GREY, 0),
    "P, one value transparent": (palette_with_transparency(), np.stack([FACE] * 3, -1), 0),
    "I;16": (png(RAMP.astype(np.uint16) * 257), GREY, 0),
    "RGB": (png(COLOURS), COLOURS, 0),
    "RGBA": (png(np.dstack([COLOURS, HALF])), COLOURS / 2, 1),
    "JPEG, L": (encoded(Image.fromarray(RAMP), "JPEG", quality=100), GREY, 2),
    "JPEG, RGB": (encoded(Image.fromarray(COLOURS), "JPEG", quality=100, subsampling=0), COLOURS, 4),
    "JPEG, CMYK": (encoded(Image.fromarray(COLOURS).convert("CMYK"), "JPEG", quality=100), COLOURS, 6),
    "WebP, RGB": (encoded(Image.fromarray(COLOURS), "WEBP", lossless=True), COLOURS, 0),
    "WebP, RGBA": (
        encoded(Image.fromarray(np.dstack([COLOURS, HALF])), "WEBP", lossless=True, exact=True),
        COLOURS / 2,
        1,
    ),
}
"""Mode -> the file, what is right, and how far each value may be from it."""


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_as_it_looks_on_black(mode):
    content, right, tolerance = MODES[mode]
    found = read_picture(content, is_mask=False)
    assert found.dtype == np.uint8 and found.shape == (64, 64, 3)
    assert np.abs(found.astype(float) - right).max() <= tolerance
    mask = read_picture(content, is_mask=True)
    luma = right @ [0.299, 0.587, 0.114]
    assert mask.shape == (64, 64) and np.abs(mask - luma).max() <= tolerance + 1


def test_a_turned_photo_is_read_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    content = encoded(Image.fromarray(COLOURS[:32]), "JPEG", quality=100, exif=exif)
    assert read_picture(content, is_mask=False).shape == (64, 32, 3)


@pytest.mark.parametrize("form", ["EPS", "PPM", "BMP", "GIF", "TIFF"])
def test_other_formats_are_not_opened_whatever_their_name(form, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("Ghostscript was started"))
    with pytest.raises(
        TrainingDataError, match=r"image\.png of sample 'key' .* cannot be read as a picture; save it as PNG"
    ):
        decoded(**{"image.png": encoded(Image.fromarray(COLOURS), form)})


def test_a_key_with_dots_is_a_sample_and_what_belongs_to_none_is_counted_and_named(tmp_path):
    write_samples(tmp_path, 2)
    for path in tmp_path.glob("000001.*"):
        path.rename(path.with_name(path.name.replace("000001", "IMG_2024.01.05")))
    assert split_name("IMG_2024.01.05.image.png") == ("IMG_2024.01.05", "image.png")
    for stray in ("notes.txt", "000000.depth.png", "image.png", ".DS_Store"):
        (tmp_path / stray).write_bytes(b"x")
    data = TrainingSet(tmp_path)
    assert data.keys == ["000000", "IMG_2024.01.05"] and data.read(1).caption == "portrait number 1"
    assert data.left_out == ("000000.depth.png", "image.png", "notes.txt")
    assert data.note == "3 files belong to no sample by its name: 000000.depth.png, image.png, notes.txt"


def test_separate_files_beside_shards_are_named(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write(random_sample(1))
    assert TrainingSet(tmp_path).note == ""
    write_samples(tmp_path, 1)
    data = TrainingSet(tmp_path)
    assert data.keys == ["000001"] and len(data.left_out) == 7 and "000000.image.png" in data.left_out
