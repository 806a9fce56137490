import pytest
import torch
from fpga.fpga_core.faces.labels import PERSON_COLORS, Sheet, drawable, person_color
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from PIL import ImageFont

FONT = ImageFont.load_default(20)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ann", "Ann"),
        ("Bob 李", "Bob …"),
        ("李小龙", ""),
        ("Анна", ""),
        ("why?", "why?"),
        ("", ""),
    ],
)
def test_text_keeps_what_the_font_has(text, shown):
    assert drawable(text, FONT) == shown


def test_an_accent_that_the_font_lacks_is_left_out():
    assert drawable("Zoé Ḁ", FONT) in ("Zoe A", "Zoé A")  # no font of a few kilobytes has Ḁ


@pytest.mark.parametrize(
    ("canvas", "sheet"),
    [
        ((768, 512), (768, 512)),
        ((64, 48), (512, 384)),
        ((4096, 2048), (1024, 512)),
        ((1, 1), (512, 512)),
        ((1, 8192), (1, 1024)),
    ],
)
def test_a_sheet_has_a_legible_size_and_the_canvass_aspect(canvas, sheet):
    drawn = Sheet(Extent(*canvas))
    drawn.outline(Box(-1, 0.2, 0.5, 2), (255, 0, 0))
    drawn.label("#1", "Ann", x=0.9, y=0.0, color=(255, 0, 0))
    assert drawn.as_image().shape == (1, sheet[1], sheet[0], 3)


def test_a_tint_mixes_the_colour_into_the_picture_by_the_weights():
    sheet = Sheet(Extent(512, 512), torch.zeros(16, 16, 3))
    weights = torch.zeros(512, 512)
    weights[:, 256:] = 1
    sheet.tint(weights, (255, 0, 0), opacity=0.4)
    image = sheet.as_image()[0]
    assert torch.equal(image[:, :256], torch.zeros(512, 256, 3))
    torch.testing.assert_close(image[:, 256:, 0], torch.full((512, 256), 0.4), atol=0.005, rtol=0)


def test_grey_and_transparent_pictures_can_be_drawn_on():
    for channels in (1, 3, 4):
        image = Sheet(Extent(512, 512), torch.full((8, 8, channels), 0.5)).as_image()
        assert image.shape == (1, 512, 512, 3)
        torch.testing.assert_close(image, torch.full_like(image, 0.5), atol=0.005, rtol=0)


def test_a_footer_stands_below_and_leaves_the_picture_alone():
    plain, noted = Sheet(Extent(512, 512)), Sheet(Extent(512, 512))
    noted.footer(["a note that is long enough to be wrapped into more than one line of this preview", "another", "李"])
    below = noted.as_image()
    assert torch.equal(below[:, :512], plain.as_image())
    assert below[:, 512:].max() > 0.8
    assert below.shape[1] > 512 + 3 * 512 / 36  # two lines and one


def test_people_have_different_colours():
    assert len({person_color(index) for index in range(len(PERSON_COLORS))}) == 7
    assert person_color(7) == person_color(0)
