"""Landmark layouts, checked on MediaPipe's own reading of a photograph and on insightface's mean shape."""

import json
import pickle
from pathlib import Path

import insightface
import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.landmarks import (
    IBUG68_FROM_106,
    IBUG68_FROM_MESH,
    MESH_CURVES,
    FacePart,
    as_ibug68,
    face_curves,
    face_outline,
    five_points,
)

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def mesh() -> np.ndarray:
    """MediaPipe's 478 points on scikit-image's astronaut, pixels."""
    return np.array(json.loads((SUPPORT / "astronaut_face_mesh.json").read_text())["points"], dtype=np.float32)


@pytest.fixture(scope="module")
def mean_shape() -> np.ndarray:
    """The mean 68-point face that insightface ships, scaled to about 200 pixels."""
    path = Path(insightface.__file__).parent / "data" / "objects" / "meanshape_68.pkl"
    return (pickle.loads(path.read_bytes())[:, :2] * 200 + 256).astype(np.float32)


def in_polygon(point: np.ndarray, polygon: np.ndarray) -> bool:
    """Even-odd rule."""
    x, y = point
    inside = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def distance_to_line(point: np.ndarray, line: np.ndarray) -> float:
    """Distance from a point to the nearest place of a polyline."""
    start, step = line[:-1], np.diff(line, axis=0)
    t = (((point - start) * step).sum(1) / (step**2).sum(1)).clip(0, 1)
    return float(np.linalg.norm(point - start - t[:, None] * step, axis=1).min())


def curves_of(landmarks: np.ndarray, part: FacePart) -> list[np.ndarray]:
    return [curve.points for curve in face_curves(landmarks) if curve.part is part]


def test_pupils_of_the_mesh_lie_inside_its_eyes_and_inside_those_of_its_68_points(mesh):
    for landmarks in (mesh, as_ibug68(mesh)):
        for part, pupil in ((FacePart.LEFT_EYE, mesh[468]), (FacePart.RIGHT_EYE, mesh[473])):
            (eye,) = curves_of(landmarks, part)
            assert in_polygon(pupil, eye)


def test_the_68_points_of_a_mesh_lie_on_its_own_curves(mesh):
    ibug = as_ibug68(mesh)
    for part in set(FacePart) - {FacePart.NOSE, FacePart.LEFT_PUPIL, FacePart.RIGHT_PUPIL}:
        rings = [np.concatenate([ring, ring[:1]]) for ring in curves_of(mesh, part)]
        for point in np.concatenate(curves_of(ibug, part)):
            assert min(distance_to_line(point, ring) for ring in rings) < 0.01, part


def test_the_68_points_of_a_mesh_walk_each_ring_once_around():
    for indices, ring in (
        (IBUG68_FROM_MESH[36:42], MESH_CURVES[7][1]),
        (IBUG68_FROM_MESH[42:48], MESH_CURVES[8][1]),
        (IBUG68_FROM_MESH[48:60], MESH_CURVES[9][1]),
        (IBUG68_FROM_MESH[60:68], MESH_CURVES[10][1]),
        (IBUG68_FROM_MESH[0:17], MESH_CURVES[0][1]),
    ):
        places = [ring.index(index) for index in indices]
        steps = np.diff(places + places[:1]) % len(ring)
        assert steps.sum() == len(ring) or (-steps % len(ring)).sum() == len(ring)


def test_the_mesh_agrees_with_the_mean_shape_of_68_points(mesh, mean_shape):
    """After the best similarity transform of one onto the other, errors as fractions of the distance of the eyes."""
    ibug = as_ibug68(mesh).astype(np.float64)
    source, target = (points[:, 0] + 1j * points[:, 1] for points in (mean_shape.astype(np.float64), ibug))
    design = np.stack([source, np.ones_like(source)], axis=1)
    (rotation, shift), *_ = np.linalg.lstsq(design, target, rcond=None)
    error = np.abs(rotation * source + shift - target) / np.abs(target[36:42].mean() - target[42:48].mean())
    assert error[36:48].max() < 0.07  # the eyes: neighbouring points are 0.1 to 0.2 apart
    assert error[17:27].max() < 0.12  # brows
    assert error.max() < 0.27  # she smiles, and the nose of a mesh is seen from another angle
    assert np.abs(np.angle(rotation)) < np.radians(10)  # not mirrored, not turned


def test_the_106_points_make_68_different_ones():
    assert len(set(IBUG68_FROM_106)) == 68
    points = np.stack([np.arange(106.0), np.zeros(106)], axis=1)
    assert as_ibug68(points)[:, 0].tolist() == list(IBUG68_FROM_106)


def test_five_points_are_named_as_the_viewer_sees_them(mesh, mean_shape):
    for landmarks in (mesh, mesh[:468], mean_shape):
        left_eye, right_eye, nose, left_mouth, right_mouth = five_points(landmarks)
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < nose[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert np.abs(five_points(mesh)[:2] - mesh[[468, 473]]).max() < 2.5  # the eye's centre is near the pupil
    five = np.arange(10.0).reshape(5, 2)
    assert (five_points(five) == five).all()


def test_an_unseen_point_makes_only_what_depends_on_it_unseen(mean_shape):
    landmarks = mean_shape.copy()
    landmarks[37] = np.nan
    points = five_points(landmarks)
    assert np.isnan(points[0]).all()
    assert np.isfinite(points[1:]).all()
    assert np.isfinite(face_outline(landmarks)).all()


def test_the_outline_holds_every_point_and_a_forehead(mean_shape, mesh):
    outline = face_outline(mean_shape)
    assert outline[:, 1].min() < mean_shape[:, 1].min() - 0.2 * np.ptp(mean_shape[:, 1])
    center = mean_shape.mean(axis=0)
    assert all(in_polygon(center + 0.999 * (point - center), outline) for point in mean_shape)
    # the forehead estimated from the mesh's 68 points reaches beyond the mesh, by less than a seventh of its height
    above = mesh[:, 1].min() - face_outline(as_ibug68(mesh))[:, 1].min()
    assert 0 < above < np.ptp(mesh[:, 1]) / 7


def test_the_outline_turns_with_the_face(mean_shape):
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
    turned, expected = face_outline(mean_shape @ turn), face_outline(mean_shape) @ turn
    assert np.allclose(sorted(map(tuple, turned.tolist())), sorted(map(tuple, expected.tolist())), atol=0.05)


def test_five_points_have_no_outline():
    assert face_outline(np.zeros((5, 2), np.float32)) is None
    assert face_outline(np.full((68, 2), np.nan, np.float32)) is None


@pytest.mark.parametrize("shape", [(0, 2), (4, 2), (69, 2), (68, 3), (68,), (477, 2)])
def test_unknown_layouts_are_refused_with_their_shape(shape):
    for read in (as_ibug68, five_points, face_curves, face_outline):
        with pytest.raises(InvalidInputError, match=str(shape[0])):
            read(np.zeros(shape, np.float32))


def test_five_points_do_not_make_68():
    with pytest.raises(InvalidInputError, match="68 landmarks cannot be made from five"):
        as_ibug68(np.zeros((5, 2), np.float32))
