import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.drawing import read_drawing
from fpga.fpga_core.identity.places import Edges, find_places
from fpga.fpga_core.shapes import Extent

CANVAS = Extent(800, 400)


def box(x, y, width, height):
    return {"x": x, "y": y, "width": width, "height": height}


def pose(*people, width=800, height=400):
    return {"canvas_width": width, "canvas_height": height, "people": list(people)}


def person(**points):
    parts = {"nose": 0, "neck": 1, "right_eye": 14, "left_eye": 15}
    flat = np.zeros((18, 3))
    for part, point in points.items():
        flat[parts[part]] = (*point, 1)
    return {"pose_keypoints_2d": flat.reshape(-1).tolist()}


def test_no_source_gives_no_places():
    assert find_places(CANVAS, Edges()) is None


@pytest.mark.parametrize(
    "boxes", [box(80, 40, 160, 80), [box(80, 40, 160, 80)], [[box(80, 40, 160, 80)]], ((box(80, 40, 160, 80),),)]
)
def test_every_form_of_a_bounding_box_is_read(boxes):
    (place,) = find_places(CANVAS, Edges(grow=0.5), boxes=boxes).places
    assert place.label == "box 1"
    assert place.face_box == Box(0.1, 0.1, 0.3, 0.3)  # not grown
    assert place.region.box.x0 == pytest.approx(0.0)
    assert place.region.box.x1 == pytest.approx(0.4)


def test_boxes_of_a_batch_are_those_of_the_first_picture_and_it_says_so():
    places = find_places(CANVAS, Edges(), boxes=[[box(0, 0, 10, 10)], [box(5, 5, 9, 9), box(1, 1, 2, 2)]])
    assert [place.face_box for place in places.places] == [Box(0, 0, 10, 10).normalised(CANVAS)]
    assert places.notes == (
        "boxes come from 2 pictures, but a cast has one set of places: those of the first picture are used",
    )


def test_boxes_that_cannot_be_used_say_why():
    places = find_places(CANVAS, Edges(0.1), boxes=[box(10, 10, 0, 50), box(770, 10, 50, 50)])
    empty, cut = places.places
    assert empty.region is None and empty.problem == "it is empty (0x50 at (10, 10))"
    assert cut.region.box.x1 == 1.0 and cut.face_box.x1 == pytest.approx(1.025)


def test_a_box_outside_the_picture_says_which_sizes_to_set():
    """It was drawn on a larger canvas: left out silently, the picture would lose a person."""
    message = r"box 2 \(Carl\) is at \(900, 10\) to \(950, 60\), outside the picture of 800x400.*set width and height"
    with pytest.raises(InvalidInputError, match=message):
        find_places(
            CANVAS, Edges(), boxes=[box(10, 10, 50, 50), {**box(900, 10, 50, 50), "metadata": {"desc": "Carl"}}]
        )


def test_boxes_of_another_canvas_are_refused_with_both_sizes():
    with pytest.raises(InvalidInputError, match="canvas of 1024x1024, but the picture of the cast is 800x400"):
        find_places(CANVAS, Edges(), boxes=[box(10, 10, 50, 50)], boxes_canvas=Extent(1024, 1024))
    assert find_places(CANVAS, Edges(), boxes=[box(10, 10, 50, 50)], boxes_canvas=CANVAS).places[0].region


def test_descriptions_of_boxes_are_names():
    boxes = [{**box(10, 10, 50, 50), "metadata": {"desc": " Anna ", "type": "obj"}}, box(60, 10, 50, 50)]
    assert [place.name for place in find_places(CANVAS, Edges(), boxes=boxes).places] == ["Anna", ""]


def test_elements_of_create_bounding_boxes_are_thousandths_of_any_picture():
    element = {"type": "obj", "bbox": [100, 250, 300, 500], "desc": "Anna"}  # top, left, bottom, right
    (place,) = find_places(CANVAS, Edges(), boxes=[element], boxes_canvas=Extent(1024, 1024)).places
    assert place.name == "Anna"
    sides = (place.face_box.x0, place.face_box.y0, place.face_box.x1, place.face_box.y1)
    assert sides == pytest.approx((0.25, 0.1, 0.5, 0.3))


def test_a_drawing_gives_named_heads_at_any_size():
    drawing = read_drawing({"people": [{"name": "Anna", "head": [0.1, 0.2, 0.3, 0.4]}]})
    for canvas in (CANVAS, Extent(64, 64)):
        (place,) = find_places(canvas, Edges(), drawing=drawing).places
        assert (place.label, place.name) == ("head 1", "Anna")
        assert place.face_box.center == pytest.approx((0.25, 0.4))
    with pytest.raises(InvalidInputError, match="boxes is connected, and people are drawn.*clear the canvas"):
        find_places(CANVAS, Edges(), drawing=drawing, boxes=[box(10, 10, 50, 50)])


@pytest.mark.parametrize(
    "boxes", ["0,0,9,9", 5, [3], [{"x": 1}], [box("a", 0, 1, 1)], [box(float("nan"), 0, 1, 1)], [[[1, 2, 3, 4]]]]
)
def test_malformed_boxes_are_refused(boxes):
    with pytest.raises(InvalidInputError, match="box"):
        find_places(CANVAS, Edges(), boxes=boxes)


def test_each_mask_is_a_place_without_a_face_box():
    masks = torch.zeros(3, 40, 80)
    masks[0, :10, :10] = 1
    masks[2, 30:, 70:] = 0.25
    first, empty, last = find_places(CANVAS, Edges(), masks=masks).places
    assert [place.label for place in (first, empty, last)] == ["mask 1", "mask 2", "mask 3"]
    assert first.face_box is None and first.region.rasterise(Extent(8, 4))[0, 0] == 1
    assert empty.region is None and empty.problem == "it is empty"
    assert last.region.rasterise(Extent(8, 4))[3, 7] == 0.25


def test_a_single_mask_without_a_batch_axis_is_one_place():
    assert len(find_places(CANVAS, Edges(), masks=torch.ones(4, 8)).places) == 1


@pytest.mark.parametrize(("size", "is_stretched"), [((80, 40), False), ((1600, 808), False), ((64, 64), True)])
def test_masks_of_another_aspect_ratio_are_stretched_and_it_says_so(size, is_stretched):
    places = find_places(CANVAS, Edges(), masks=torch.ones(1, size[1], size[0]))
    note = f"masks come from a {size[0]}x{size[1]} picture and are stretched to the 800x400 canvas"
    assert places.notes == ((note,) if is_stretched else ())


def test_faces_keep_their_order_boxes_and_embeddings():
    embeddings = [{"r": np.arange(512.0)}, {"r": np.ones(512)}]
    boxes = [Box(200, 50, 240, 100), Box(10, 20, 50, 60)]
    found = tuple(Face(box, embeddings=seen) for box, seen in zip(boxes, embeddings, strict=True))
    picture = PictureFaces(Extent(400, 200), found)
    places = find_places(CANVAS, Edges(0.2, 0.1), faces=(picture, picture))
    assert [place.face_box for place in places.places] == [Box(0.5, 0.25, 0.6, 0.5), Box(0.025, 0.1, 0.125, 0.3)]
    assert [place.embeddings for place in places.places] == embeddings
    assert len(places.notes) == 1 and "2 pictures" in places.notes[0]


def test_a_skeleton_gives_heads_and_names_bodies_without_one():
    people = [person(nose=(200, 120), right_eye=(180, 100), left_eye=(220, 100)), person(neck=(500, 300))]
    seen, unseen = find_places(CANVAS, Edges(), skeleton=[pose(*people)]).places
    assert seen.face_box.center == pytest.approx((200 / 800, 110 / 400))
    assert seen.face_box.width * 800 == pytest.approx(2.1 * 40)
    assert unseen.region is None and unseen.problem == "the skeleton does not show its head"


def test_a_skeleton_found_at_another_size_is_scaled_to_the_canvas():
    small = pose(person(nose=(100, 60), right_eye=(90, 50), left_eye=(110, 50)), width=400, height=200)
    large = pose(person(nose=(200, 120), right_eye=(180, 100), left_eye=(220, 100)))
    (a,), (b,) = (find_places(CANVAS, Edges(), skeleton=skeleton).places for skeleton in (small, large))
    assert a.face_box == b.face_box
    with pytest.raises(ShapeMismatchError, match="512x512"):
        find_places(CANVAS, Edges(), skeleton=pose(person(nose=(1, 1)), width=512, height=512))


def test_several_sources_are_refused_by_name():
    with pytest.raises(InvalidInputError, match="boxes and skeleton are connected"):
        find_places(CANVAS, Edges(), boxes=box(0, 0, 9, 9), skeleton=pose())


def test_faces_without_a_picture_are_refused():
    with pytest.raises(InvalidInputError, match="faces hold no picture"):
        find_places(CANVAS, Edges(), faces=())
