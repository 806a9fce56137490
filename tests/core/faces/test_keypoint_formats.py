"""FACE_LANDMARKS and POSE_KEYPOINT payloads: coordinates, missing parts, and malformed values."""

import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError, ShapeMismatchError
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.faces.keypoint_formats import faces_and_bodies, read_face_landmarks, read_pose_keypoints
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

RNG = np.random.default_rng(0)
BODY = RNG.uniform(100, 400, (18, 2))
FACE = RNG.uniform(200, 300, (70, 2))


def flat(points: np.ndarray, confidence=1.0) -> list[float]:
    return np.column_stack([points, np.broadcast_to(confidence, len(points))]).ravel().tolist()


def frame(body=BODY, face=FACE, width=512, height=512, **person) -> dict:
    keypoints = {"pose_keypoints_2d": flat(body), "face_keypoints_2d": flat(face), **person}
    return {"canvas_width": width, "canvas_height": height, "people": [keypoints]}


def mesh_payload(points: np.ndarray, size=(512, 512)) -> dict:
    box = np.array([*points.min(0), *points.max(0)], np.float32)
    face = {"landmarks_xy": points.astype(np.float32), "bbox_xyxy": box, "score": 0.9, "presence": 3.0}
    return {"frames": [[face]], "image_size": size, "connection_sets": {}}


MESH = RNG.uniform(100, 300, (478, 2))


def test_mediapipe_faces_keep_their_points_box_and_score():
    ((picture),) = read_face_landmarks(mesh_payload(MESH), [Extent(512, 512)])
    (face,) = picture.faces
    assert np.allclose(face.landmarks, MESH, atol=1e-3)
    assert (face.box.x0, face.box.y1) == pytest.approx((MESH[:, 0].min(), MESH[:, 1].max()), abs=1e-3)
    assert face.score == pytest.approx(0.9)


def test_mediapipe_sizes_are_height_first_and_points_follow_a_resized_image():
    (picture,) = read_face_landmarks(mesh_payload(MESH, size=(400, 600)), [Extent(1200, 800)])
    assert np.allclose(picture.faces[0].landmarks, MESH * 2, atol=1e-3)
    with pytest.raises(ShapeMismatchError, match="600x400.*400x600"):
        read_face_landmarks(mesh_payload(MESH, size=(400, 600)), [Extent(400, 600)])


def test_pose_in_pixels_and_in_fractions_are_the_same():
    extents = [Extent(640, 480)]
    in_pixels = frame(width=640, height=480)
    size = np.array([640, 480])
    in_fractions = frame(BODY / size, FACE / size, width=640, height=480)
    for payload in (in_pixels, [in_pixels], (in_fractions,)):
        (picture,) = read_pose_keypoints(payload, extents)
        assert np.allclose(picture.bodies[0].keypoints[:, :2], BODY, atol=1e-3)
        assert np.allclose(picture.faces[0].landmarks, FACE[:68], atol=1e-3)


def test_pose_follows_a_resized_image():
    (picture,) = read_pose_keypoints(frame(), [Extent(1024, 1024)])
    assert np.allclose(picture.bodies[0].keypoints[:, :2], BODY * 2, atol=1e-3)


def test_canvas_padded_to_64_keeps_the_scale_of_the_short_side():
    """controlnet_aux at resolution 512 makes 1000x750 into 683x512 and pads to 704x512."""
    (picture,) = read_pose_keypoints(frame(width=704, height=512), [Extent(1000, 750)])
    assert np.allclose(picture.bodies[0].keypoints[:, :2], BODY * 750 / 512, atol=1e-2)


def test_the_box_of_a_pose_face_holds_its_points_and_a_forehead():
    (picture,) = read_pose_keypoints(frame(), [Extent(512, 512)])
    box = picture.faces[0].box
    points = FACE[:68]
    assert (box.x0, box.y1) <= (points[:, 0].min() + 1e-3, points[:, 1].max() + 1e3)
    assert box.x1 >= points[:, 0].max() - 1e-3 and box.y0 <= points[:, 1].min() + 1e-3


def test_points_that_were_not_seen():
    """Confidence below 0.3, zero, and SDPose's (-1, -1); with less than half of the points, there is no face."""
    confidence = np.ones(70)
    confidence[:10], confidence[10] = 0.29, 0.3
    points = FACE.copy()
    points[20] = -1
    (picture,) = read_pose_keypoints(frame(face_keypoints_2d=flat(points, confidence)), [Extent(512, 512)])
    unseen = np.flatnonzero(np.isnan(picture.faces[0].landmarks).any(axis=1))
    assert unseen.tolist() == [*range(10), 20]
    for num_seen, num_faces in ((34, 1), (33, 0)):
        confidence = np.concatenate([np.ones(num_seen), np.zeros(68 - num_seen)])
        payload = frame(face_keypoints_2d=flat(FACE[:68], confidence))
        assert len(read_pose_keypoints(payload, [Extent(512, 512)])[0].faces) == num_faces


def test_absent_lists_and_nobody():
    for absent in (None, []):
        (picture,) = read_pose_keypoints(frame(face_keypoints_2d=absent), [Extent(512, 512)])
        assert (len(picture.faces), len(picture.bodies)) == (0, 1)
    nobody = {"canvas_width": 512, "canvas_height": 512, "people": []}
    assert read_pose_keypoints(nobody, [Extent(512, 512)]) == (PictureFaces(Extent(512, 512)),)
    empty = {"frames": [[]], "image_size": (512, 512)}
    assert read_face_landmarks(empty, [Extent(512, 512)]) == (PictureFaces(Extent(512, 512)),)


def test_body_25_is_reduced_to_18():
    """OpenPose's own JSON: BODY_25 has the mid-hip at 8, eyes and ears at 15-18, feet from 19."""
    points = np.stack([np.arange(25) * 10.0, np.arange(25) * 10.0 + 5], axis=1)
    (picture,) = read_pose_keypoints(frame(pose_keypoints_2d=flat(points)), [Extent(512, 512)])
    kept = picture.bodies[0].keypoints[:, 0] / 10
    assert kept.round().astype(int).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]


def test_frames_belong_to_the_pictures_of_the_batch():
    extents = [Extent(512, 512)] * 3
    shifted = [frame(BODY + 10 * index) for index in range(3)]
    found = read_pose_keypoints(shifted, extents)
    assert [round(float(p.bodies[0].keypoints[0, 0] - BODY[0, 0])) for p in found] == [0, 10, 20]
    assert len(read_pose_keypoints(frame(), extents)) == 3  # one frame serves all
    for frames in ([], shifted[:2], shifted + shifted):
        with pytest.raises(ShapeMismatchError, match=f"{len(frames)} frames, but the batch has 3 pictures"):
            read_pose_keypoints(frames, extents)


def test_bodies_join_faces_in_the_size_of_their_picture():
    faces = (PictureFaces(Extent(1024, 1024), (Face(Box(0, 0, 9, 9)),)),)
    (joined,) = faces_and_bodies(faces, [frame()])
    assert joined.faces == faces[0].faces
    assert np.allclose(joined.bodies[0].keypoints[:, :2], BODY * 2, atol=1e-3)


MALFORMED_POSES = {
    "not a list": 5,
    "a person is no dictionary": {"canvas_width": 9, "canvas_height": 9, "people": [[]]},
    "no people": {"canvas_width": 9, "canvas_height": 9, "animals": []},
    "no canvas": {"people": []},
    "empty canvas": {"canvas_width": 0, "canvas_height": 9, "people": []},
    "canvas of text": {"canvas_width": "wide", "canvas_height": 9, "people": []},
    "wrong number of keypoints": frame(pose_keypoints_2d=[0.0] * 51),
    "wrong number of face points": frame(face_keypoints_2d=[0.0] * 54),
    "text among the keypoints": frame(pose_keypoints_2d=["x"] * 54),
    "not a number": frame(pose_keypoints_2d=[float("nan")] * 54),
    "none among the keypoints": frame(pose_keypoints_2d=[None] * 54),
    "nested": frame(pose_keypoints_2d=[[1.0, 2.0]] * 54),
    "a huge number": frame(pose_keypoints_2d=[10**400] * 54),
}


@pytest.mark.parametrize("payload", MALFORMED_POSES.values(), ids=MALFORMED_POSES.keys())
def test_malformed_poses_are_named_errors(payload):
    with pytest.raises(InvalidInputError):
        read_pose_keypoints(payload, [Extent(512, 512)])


MALFORMED_MESHES = {
    "not a dictionary": [[]],
    "no frames": {"image_size": (9, 9)},
    "no size": {"frames": [[]]},
    "size of three": {"frames": [[]], "image_size": (9, 9, 3)},
    "a face is no dictionary": {"frames": [[7]], "image_size": (9, 9)},
    "no box": {"frames": [[{"landmarks_xy": MESH, "score": 1}]], "image_size": (9, 9)},
    "other layout": mesh_payload(MESH[:100]),
    "three columns": mesh_payload(np.ones((478, 3))),
    "not finite": mesh_payload(np.full((478, 2), np.inf)),
}


@pytest.mark.parametrize("payload", MALFORMED_MESHES.values(), ids=MALFORMED_MESHES.keys())
def test_malformed_landmarks_are_named_errors(payload):
    with pytest.raises(InvalidInputError):
        read_face_landmarks(payload, [Extent(512, 512)])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.builds(
    lambda places, value: [value if index in places else 0.5 for index in range(54)],
    st.sets(st.integers(0, 53), max_size=5),
    st.floats() | st.integers() | ANYTHING,
)


@settings(max_examples=60, deadline=None)
@given(anything=ANYTHING, numbers=NUMBERS, width=ANYTHING | st.integers(1, 2000))
def test_whatever_comes_is_read_or_refused_by_name(anything, numbers, width):
    person = {"pose_keypoints_2d": numbers, "face_keypoints_2d": anything}
    payloads = (anything, {"canvas_width": width, "canvas_height": 512, "people": [person]})
    for payload in payloads:
        try:
            (picture,) = read_pose_keypoints(payload, [Extent(64, 48)])
        except InvalidInputError:
            continue
        assert all(np.isfinite(body.keypoints).all() for body in picture.bodies)
    face = {"landmarks_xy": anything, "bbox_xyxy": numbers[:4], "score": width}
    for payload in (
        anything,
        {"frames": [[face]], "image_size": (48, width)},
        {"frames": anything, "image_size": (48, 64)},
    ):
        try:
            read_face_landmarks(payload, [Extent(64, 48)])
        except InvalidInputError:
            continue


def test_a_pose_alone_keeps_its_own_size():
    (alone,) = faces_and_bodies(None, [frame()])
    (read,) = read_pose_keypoints([frame()], [alone.extent])
    assert (alone.extent.width, alone.extent.height) == (frame()["canvas_width"], frame()["canvas_height"])
    assert np.array_equal(alone.bodies[0].keypoints, read.bodies[0].keypoints)


def test_neither_faces_nor_a_pose_is_refused():
    with pytest.raises(InvalidInputError, match="connect faces, a skeleton, or both"):
        faces_and_bodies(None)
