import torch
from fpga.fpga_core.faces.labels import person_color
from fpga.fpga_core.identity.cast_preview import draw_casting
from fpga.fpga_core.identity.casting import make_cast
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.places import Edges, find_places
from fpga.fpga_core.shapes import Extent

CANVAS = Extent(512, 512)
BOXES = [{"x": x, "y": 200, "width": 100, "height": 100} for x in (20, 200, 380)]


def casting(*names: str, boxes=BOXES):
    people = [Identity(name, {"r": torch.ones(1, 512)}) for name in names]
    return make_cast(people, CANVAS, find_places(CANVAS, Edges(), boxes=boxes))


def test_each_person_is_drawn_in_their_place_and_colour_and_unused_places_are_grey():
    image = draw_casting(casting("Ann", "Bob"), torch.zeros(512, 512, 3))[0]
    for index, x in enumerate((20, 200)):
        color = torch.tensor(person_color(index)) / 255
        torch.testing.assert_close(image[250, x + 50], color * 0.45, atol=0.01, rtol=0)  # the tint
        torch.testing.assert_close(image[300, x + 50], color)  # the face box
    assert torch.equal(image[250, 430], torch.zeros(3))
    assert torch.equal(image[240:300, 380].unique(dim=0)[-1], torch.full((3,), 150 / 255))


def test_a_name_that_cannot_be_written_is_its_number_alone():
    assert torch.equal(draw_casting(casting("李小龙", boxes=BOXES[:1])), draw_casting(casting("", boxes=BOXES[:1])))
    assert not torch.equal(draw_casting(casting("Ann", boxes=BOXES[:1])), draw_casting(casting("", boxes=BOXES[:1])))


def test_notes_stand_under_the_picture():
    quiet = draw_casting(casting("Ann", "Bob", "Cat"))
    noted = draw_casting(casting("Ann", "Bob"))
    assert quiet.shape == (1, 512, 512, 3)
    assert noted.shape[1] > 512 and noted.shape[2] == 512


def test_people_in_the_whole_picture_are_listed():
    people = [Identity(name, {"r": torch.ones(1, 512)}) for name in ("Ann", "Bob")]
    image = draw_casting(make_cast(people, Extent(64, 64)), torch.zeros(64, 64, 3))
    for index in range(2):
        assert (image == torch.tensor(person_color(index)) / 255).all(-1).any()
