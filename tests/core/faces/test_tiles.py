"""Tiles show every face of a large picture whole, and a picture that fits is searched as it was."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from fpga.fpga_core.faces.tiles import FITS, detect_in_tiles, detection_tiles
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

INPUT_PX = 640


@dataclass
class Painted:
    """A detector that finds the rectangles of one colour, if they are at least 12 pixels in its input of 640."""

    input_sizes: list = field(default_factory=lambda: [(128, 128), (INPUT_PX, INPUT_PX)])
    seen: list = field(default_factory=list)

    def detect(self, img):
        self.seen.append(img.shape[:2])
        shrink = max(*img.shape[:2], 1) / INPUT_PX
        found = []
        for color in np.unique(img[..., 0][img[..., 0] > 0]):
            rows, columns = np.nonzero(img[..., 0] == color)
            x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            if max(x1 - x0, y1 - y0) / shrink >= 12:
                found.append((x0, y0, x1, y1, 0.9 - 0.01 * shrink))
        boxes = np.array(found, np.float32).reshape(-1, 5)
        return boxes, np.repeat(boxes[:, None, :2], 5, axis=1)

    def nms(self, dets):
        kept = []
        for row in np.argsort(-dets[:, 4], kind="stable"):
            if all(iou(dets[row], dets[other]) <= 0.4 for other in kept):
                kept.append(row)
        return kept


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def test_a_picture_that_fits_is_searched_once_and_its_faces_are_the_detector_s_own():
    picture = np.zeros((1080, FITS * INPUT_PX, 3), np.uint8)
    picture[100:150, 300:340] = 1
    detector = Painted()
    boxes, points = detect_in_tiles(detector, picture)
    theirs, their_points = detector.detect(picture)
    assert detector.seen == [(1080, 1920)] * 2
    np.testing.assert_array_equal(boxes, theirs)
    np.testing.assert_array_equal(points, their_points)


@pytest.mark.parametrize(
    ("size", "passes"), [((1216, 832), 1), ((1920, 1080), 1), ((2048, 2048), 5), ((4096, 4096), 17)]
)
def test_the_cost_is_what_the_pages_say(size, passes):
    assert len(detection_tiles(Extent(*size), INPUT_PX)) == passes


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(16, 20000),
    height=st.integers(16, 20000),
    size=st.floats(2, 20000),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_face_is_whole_somewhere_and_large_enough_there(width, height, size, place):
    """Wherever a face is, a tile shows it whole in which it is no smaller than a third of its size, or 20 pixels."""
    size = min(size, width, height)
    x, y = place[0] * (width - size), place[1] * (height - size)
    box = np.array([[x, y, x + size, y + size]])
    tiles = detection_tiles(Extent(width, height), INPUT_PX)
    whole = [tile for tile in tiles if tile.shows_whole(box, Extent(width, height))[0] and inside(box[0], tile)]
    shown_px = max(size * min(INPUT_PX / max(tile.x1 - tile.x0, tile.y1 - tile.y0), 1) for tile in whole)
    assert shown_px >= min(size / FITS, 20)


def inside(box, tile) -> bool:
    return (
        tile.x0 <= box[0] + 1e-6 and tile.y0 <= box[1] + 1e-6 and box[2] <= tile.x1 + 1e-6 and box[3] <= tile.y1 + 1e-6
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_faces_of_a_large_picture_are_found_once_and_at_their_places(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1930, 4200, 2)
    picture = np.zeros((height, width, 3), np.uint8)
    true = []
    for color in range(1, 8):
        size = int(min(np.exp(rng.uniform(np.log(40), np.log(900))), height, width))
        x, y = rng.integers(0, width - size + 1), rng.integers(0, height - size + 1)
        box = (x, y, x + size, y + size)
        if all(iou(box, other) == 0 for other in true):
            picture[y : y + size, x : x + size] = color
            true.append(box)
    boxes, points = detect_in_tiles(Painted(), picture)
    assert sorted(map(tuple, boxes[:, :4].astype(int))) == sorted(true)
    np.testing.assert_array_equal(points[:, 0], boxes[:, :2])
    assert (np.diff(boxes[:, 4]) <= 0).all()
