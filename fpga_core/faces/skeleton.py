"""The body skeleton that pose ControlNets were trained on: OpenPose's 18 keypoints, limbs and colours."""

from __future__ import annotations

NUM_KEYPOINTS = 18

# Right and left are the subject's.
LIMBS: tuple[tuple[int, int], ...] = (
    (1, 2),  # neck, right shoulder
    (1, 5),  # neck, left shoulder
    (2, 3),  # right shoulder, elbow
    (3, 4),  # right elbow, wrist
    (5, 6),  # left shoulder, elbow
    (6, 7),  # left elbow, wrist
    (1, 8),  # neck, right hip
    (8, 9),  # right hip, knee
    (9, 10),  # right knee, ankle
    (1, 11),  # neck, left hip
    (11, 12),  # left hip, knee
    (12, 13),  # left knee, ankle
    (1, 0),  # neck, nose
    (0, 14),  # nose, right eye
    (14, 16),  # right eye, ear
    (0, 15),  # nose, left eye
    (15, 17),  # left eye, ear
)

# One colour per keypoint; a limb has the colour of its place in LIMBS, darkened.
COLORS: tuple[tuple[int, int, int], ...] = (
    (255, 0, 0),  # nose
    (255, 85, 0),  # neck
    (255, 170, 0),  # right shoulder
    (255, 255, 0),  # right elbow
    (170, 255, 0),  # right wrist
    (85, 255, 0),  # left shoulder
    (0, 255, 0),  # left elbow
    (0, 255, 85),  # left wrist
    (0, 255, 170),  # right hip
    (0, 255, 255),  # right knee
    (0, 170, 255),  # right ankle
    (0, 85, 255),  # left hip
    (0, 0, 255),  # left knee
    (85, 0, 255),  # left ankle
    (170, 0, 255),  # right eye
    (255, 0, 255),  # left eye
    (255, 0, 170),  # right ear
    (255, 0, 85),  # left ear
)

LIMB_BRIGHTNESS = 0.6

# The positions of the 18 among the 25 keypoints of OpenPose's BODY_25, which also has a mid-hip and feet.
FROM_BODY_25 = (*range(8), *range(9, 19))
