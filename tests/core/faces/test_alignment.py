"""Aligned crops, compared with those of insightface and scikit-image."""

import cv2
import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.alignment import ARCFACE_TEMPLATE, align_face, alignment_points, similarity_transform
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from hypothesis import given
from hypothesis import strategies as st
from insightface.utils.face_align import arcface_dst, norm_crop
from skimage.data import astronaut
from skimage.transform import SimilarityTransform

EYES_NOSE_MOUTH = np.array([[205.0, 110], [240, 107], [225, 128], [208, 150], [240, 147]])
"""Eileen Collins's, in scikit-image's photograph."""


def face(**points) -> Face:
    return Face(Box(0, 0, 10, 10), **points)


def test_template_is_insightface_s():
    np.testing.assert_allclose(ARCFACE_TEMPLATE, arcface_dst, atol=1e-5)


@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")
def test_crop_is_insightface_s(size):
    rng = np.random.default_rng(size)
    for _ in range(5):
        points = EYES_NOSE_MOUTH + rng.normal(0, 4, (5, 2))
        ours = align_face(astronaut(), face(keypoints=points), size)
        theirs = norm_crop(astronaut(), points, size)
        # The two transforms agree to rounding errors, which move single pixels by a grey level.
        difference = np.abs(ours.astype(int) - theirs.astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.01, 100),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
)
def test_a_similarity_is_recovered(angle, scale, shift):
    true = SimilarityTransform(scale=scale, rotation=angle, translation=shift)
    found = similarity_transform(ARCFACE_TEMPLATE, true(ARCFACE_TEMPLATE))
    np.testing.assert_allclose(found, true.params[:2], rtol=1e-6, atol=1e-6)


def test_noisy_points_are_fitted_in_the_least_squares_sense():
    noisy = EYES_NOSE_MOUTH + np.random.default_rng(0).normal(0, 5, (5, 2))
    found = similarity_transform(noisy, ARCFACE_TEMPLATE)

    def error(matrix: np.ndarray) -> float:
        return float((((noisy @ matrix[:, :2].T + matrix[:, 2]) - ARCFACE_TEMPLATE) ** 2).sum())

    design = np.zeros((10, 4))  # u = a x - b y + c, v = b x + a y + d, solved by a general solver
    design[0::2] = np.column_stack([noisy[:, 0], -noisy[:, 1], np.ones(5), np.zeros(5)])
    design[1::2] = np.column_stack([noisy[:, 1], noisy[:, 0], np.zeros(5), np.ones(5)])
    a, b, c, d = np.linalg.lstsq(design, ARCFACE_TEMPLATE.ravel(), rcond=None)[0]
    np.testing.assert_allclose(found, [[a, -b, c], [b, a, d]], atol=1e-9)
    assert error(found) <= error(np.array([[a, -b, c], [b, a, d]])) + 1e-9


def test_a_mirrored_target_is_never_reached_by_a_reflection():
    mirrored = ARCFACE_TEMPLATE * [-1, 1]
    matrix = similarity_transform(ARCFACE_TEMPLATE, mirrored)
    assert np.linalg.det(matrix[:, :2]) >= 0


def test_the_detector_s_own_points_come_first():
    landmarks = np.random.default_rng(0).uniform(0, 100, (68, 2))
    assert alignment_points(face(keypoints=EYES_NOSE_MOUTH, landmarks=landmarks)) is EYES_NOSE_MOUTH
    np.testing.assert_array_equal(alignment_points(face(landmarks=landmarks))[2], landmarks[30])  # the nose's tip


def test_features_land_on_the_template():
    picture = np.zeros((300, 300, 3), np.uint8)
    for x, y in EYES_NOSE_MOUTH.astype(int):
        cv2.circle(picture, (int(x), int(y)), 2, (255, 255, 255), -1)
    crop = align_face(picture, face(keypoints=EYES_NOSE_MOUTH), 224)
    for x, y in ARCFACE_TEMPLATE * 2:
        around = crop[int(y) - 12 : int(y) + 12, int(x) - 12 : int(x) + 12]
        assert around.max() == 255


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "no eyes, nose or mouth"),
        ({"keypoints": np.full((5, 2), np.nan)}, "no eyes, nose or mouth"),
        ({"keypoints": np.full((5, 2), 7.0)}, "are at one point"),
    ],
)
def test_faces_that_cannot_be_aligned_are_refused(points, message):
    with pytest.raises(InvalidInputError, match=message):
        align_face(astronaut(), face(**points))
