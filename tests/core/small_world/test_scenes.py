"""The small world's renderer: the six modalities are exact, and identity is not in the caption."""

import cv2
import numpy as np
import pytest
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.anatomy import landmarks, smile_of
from fpga.laboratory.gallery import conditions_of, crop_number, gallery, scene_number
from fpga.laboratory.painter import paint, paint_face_masks
from fpga.laboratory.people import random_person
from fpga.laboratory.scenes import Shot, random_scene

SIZE = Extent(128, 128)


@pytest.fixture(params=list(Shot))
def scene(request):
    return random_scene(np.random.default_rng(3), request.param)


def test_a_scene_number_always_gives_the_same_picture():
    assert np.array_equal(paint(scene_number(5), 64), paint(scene_number(5), 64))
    assert not np.array_equal(paint(scene_number(5), 64), paint(scene_number(6), 64))


def test_landmarks_lie_in_their_face_and_the_box_around_it(scene):
    masks = paint_face_masks(scene, SIZE.width)
    for face, mask in zip(scene.faces(SIZE).faces, masks, strict=True):
        inner = face.landmarks[17:]
        box = face.box
        assert len(face.landmarks) == 68
        assert (inner >= (box.x0, box.y0)).all() and (inner <= (box.x1, box.y1)).all()
        rows, columns = np.nonzero(mask > 0.5)
        assert abs(rows.min() - box.y0) < 2 and abs(columns.max() + 1 - box.x1) < 2
        eyes_and_mouth = inner[19:].astype(int)
        assert mask[eyes_and_mouth[:, 1], eyes_and_mouth[:, 0]].mean() > 0.95


def test_a_zoomed_scene_shows_that_part_of_the_picture(scene):
    window = Box(0.25, 0.125, 0.5, 0.375)
    part = paint(scene, 512)[64:192, 128:256].astype(int)
    assert np.abs(paint(scene.zoomed(window), 128) - part).mean() < 1
    again = scene.zoomed(Box(0, 0, 0.5, 0.5)).zoomed(Box(0.5, 0.25, 1, 0.75))
    assert np.abs(paint(again, 128).astype(int) - part).mean() < 1
    assert scene.zoomed(window).caption == scene.caption


def test_face_crops_show_one_face_as_restoration_crops_it():
    for number in range(20):
        scene = crop_number(number)
        (face,) = scene.faces(SIZE).faces
        assert 128 / 2.3 < face.size_px < 128 / 1.5 and face.box.x0 > 0 and face.box.y1 < 128
        assert scene == crop_number(number)


def test_eyes_are_painted_where_the_landmarks_are():
    scene = random_scene(np.random.default_rng(0), Shot.CLOSE)
    big = paint(scene, 512)
    landmarks = scene.faces(Extent(512, 512)).faces[0].landmarks
    for eye in (landmarks[36:42], landmarks[42:48]):
        white = np.zeros(big.shape[:2], np.uint8)
        cv2.fillPoly(white, [eye.round().astype(np.int32)], 1)
        inside = big[white > 0].astype(int)
        assert (inside.min(axis=1) > 230).mean() > 0.1  # the white of the eye
        assert (inside.max(axis=1) < 40).mean() > 0.03  # the pupil


def test_the_same_person_looks_alike_in_other_scenes_only_where_identity_shows():
    person = random_person(np.random.default_rng(1))
    first, second = (random_scene(np.random.default_rng(seed), Shot.CLOSE, (person,)) for seed in (1, 2))
    assert first.actors[0].person == second.actors[0].person
    assert first.actors[0].head != second.actors[0].head


def test_captions_do_not_tell_who_somebody_is():
    others = [random_person(np.random.default_rng(seed)) for seed in (1, 2)]
    captions = {random_scene(np.random.default_rng(9), Shot.HALF, (person,)).caption for person in others}
    assert len(captions) == 1


def test_groups_stand_from_left_to_right_and_every_body_has_its_face():
    scene = random_scene(np.random.default_rng(2), Shot.TRIO)
    found = scene.faces(SIZE)
    centers = [face.box.center[0] for face in found.faces]
    assert centers == sorted(centers)
    for face, body in zip(found.faces, found.bodies, strict=True):
        nose = body.keypoints[0, :2]
        assert face.box.x0 < nose[0] < face.box.x1 and face.box.y0 < nose[1] < face.box.y1


def test_a_gallery_is_rendered_once_and_holds_what_its_scenes_say(tmp_path):
    made = gallery(tmp_path, 3, first=10)
    assert len(made) == 3 and made.pictures.shape == (3, 128, 128, 3)
    assert np.array_equal(made.pictures[1], paint(scene_number(11), 128))
    skeleton, landmarks = conditions_of(scene_number(11))
    assert np.array_equal(made.skeletons[1], skeleton) and np.array_equal(made.landmarks[1], landmarks)
    times = [file.stat().st_mtime_ns for file in tmp_path.iterdir()]
    gallery(tmp_path, 3, first=10)
    assert [file.stat().st_mtime_ns for file in tmp_path.iterdir()] == times


def test_the_wrong_number_of_people_is_refused():
    with pytest.raises(ValueError, match="a trio shows 3 people, not 1"):
        random_scene(np.random.default_rng(0), Shot.TRIO, (random_person(np.random.default_rng(0)),))


@pytest.mark.parametrize("number", range(8))
def test_a_smile_is_read_off_the_landmarks_as_it_was_drawn(number):
    (actor, *_) = scene_number(number).actors
    assert smile_of(landmarks(actor)) == pytest.approx(actor.smile, abs=1e-6)
