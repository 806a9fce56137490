"""The body skeleton that pose ControlNets were trained on: OpenPose's 18 keypoints, their limbs and colours."""

from __future__ import annotations

NUM_KEYPOINTS = 18

# Keypoints: nose, neck, right arm (shoulder, elbow, wrist), left arm, right leg (hip, knee, ankle), left leg, right and
# left eye, right and left ear; right and left are the subject's.
LIMBS: tuple[tuple[int, int], ...] = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

# One colour per keypoint; a limb has the colour of its place in LIMBS, darkened.
COLORS: tuple[tuple[int, int, int], ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip

LIMB_BRIGHTNESS = 0.6

# Places of the 18 among the 25 keypoints of OpenPose's BODY_25, which has a mid-hip and feet besides.
FROM_BODY_25 = (*range(8), *range(9, 19))
