import numpy as np
import pytest
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.heads import head_box

NOSE, NECK, RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR = 0, 1, 14, 15, 16, 17

# Face boxes, eyes and noses as facenet-pytorch's MTCNN sees them in photographs that packages ship: scikit-image's
# astronaut, then insightface's group photo (t1.jpg), where heads are turned by less than about 30 degrees.
MEASURED = [
    ((181.1, 62.2, 267.7, 172.1), (205.0, 101.7), (246.8, 103.7), (224.7, 129.0)),
    ((465.0, 261.8, 570.4, 405.2), (492.8, 319.0), (543.4, 331.6), (510.6, 362.9)),
    ((54.6, 262.8, 165.3, 397.3), (84.1, 330.3), (128.1, 303.5), (118.4, 337.7)),
    ((268.2, 149.7, 375.1, 272.4), (292.5, 209.1), (323.1, 187.4), (311.4, 224.2)),
    ((743.0, 346.0, 843.5, 473.8), (761.2, 397.2), (803.4, 401.4), (773.6, 431.8)),
    ((1134.5, 276.3, 1227.7, 395.4), (1150.1, 326.3), (1193.7, 324.6), (1164.1, 349.5)),
    ((1093.9, 691.6, 1135.4, 741.5), (1107.9, 709.9), (1128.1, 709.1), (1119.7, 721.4)),
]

# Centimetres from the middle of the eyes on an adult head: x to the viewer's right, y down, z towards the viewer.
HEAD = {
    RIGHT_EYE: (-3.15, 0.0, 0.0),
    LEFT_EYE: (3.15, 0.0, 0.0),
    NOSE: (0.0, 3.8, 2.2),
    RIGHT_EAR: (-7.0, 2.0, -9.5),
    LEFT_EAR: (7.0, 2.0, -9.5),
}


def keypoints(points: dict[int, tuple[float, float]]) -> np.ndarray:
    body = np.zeros((18, 3))
    for part, point in points.items():
        body[part] = (*point, 1.0)
    return body


def turned_head(degrees: float, scale: float = 10.0) -> dict[int, tuple[float, float]]:
    """The head seen from an angle; the far ear disappears from 20 degrees, the far eye from 60."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    hidden = ([RIGHT_EAR] if degrees > 20 else []) + ([RIGHT_EYE] if degrees > 60 else [])
    return {part: ((x * cos - z * sin) * scale, y * scale) for part, (x, y, z) in HEAD.items() if part not in hidden}


@pytest.mark.parametrize(("box", "right_eye", "left_eye", "nose"), MEASURED)
def test_eyes_and_nose_of_photographs_give_the_detectors_box(box, right_eye, left_eye, nose):
    estimate = head_box(keypoints({RIGHT_EYE: right_eye, LEFT_EYE: left_eye, NOSE: nose}))
    assert estimate.iou(Box(*box)) > 0.55  # the paper's rule asks for more than 0.5


@pytest.mark.parametrize("degrees", range(0, 91, 10))
def test_a_turned_head_keeps_its_size(degrees):
    frontal, turned = head_box(keypoints(turned_head(0))), head_box(keypoints(turned_head(degrees)))
    assert 0.9 < turned.height / frontal.height < 1.1


def test_a_profiles_box_lies_between_nose_and_ear():
    points = turned_head(90)
    center_x = head_box(keypoints(points)).center[0]
    assert min(points[NOSE][0], points[LEFT_EAR][0]) < center_x < max(points[NOSE][0], points[LEFT_EAR][0])


def test_nose_and_neck_alone_give_a_head_over_the_shoulders():
    box = head_box(keypoints({NOSE: (100, 100), NECK: (100, 190)}))
    assert box.center == (100, 100)
    assert 60 < box.width < 70  # eyes are about a third of the nose's height over the shoulders apart
    assert box.y1 < 190


@pytest.mark.parametrize(
    "seen", [{}, {NECK: (5, 5)}, {NOSE: (5, 5)}, {RIGHT_EYE: (5, 5), NECK: (5, 9)}, {2: (1, 1), 5: (9, 1)}]
)
def test_too_few_keypoints_give_no_head(seen):
    assert head_box(keypoints(seen)) is None


def test_keypoints_of_low_confidence_are_not_seen():
    body = keypoints({NOSE: (100, 100), RIGHT_EYE: (90, 90), LEFT_EYE: (110, 90)})
    body[RIGHT_EAR] = (900, 900, 0.2)
    clean = body.copy()
    clean[RIGHT_EAR] = 0
    assert head_box(body) == head_box(clean)
