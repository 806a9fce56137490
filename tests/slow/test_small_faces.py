"""Small faces of large pictures, found by the small world's detector through insightface."""

import numpy as np
import pytest
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.faces.onnx_runtimes import Provider
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.painter import paint
from fpga.laboratory.scenes import Shot, random_scene
from fpga.laboratory.shipped import FACE_PACK

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated")

FACE_PX = 60
PICTURE_PX = 4096


@pytest.fixture(scope="module")
def pack():
    return load_insightface_pack(FACE_PACK, Provider.CPU)


@pytest.mark.parametrize("seed", range(3))
def test_a_60_px_face_in_a_4096_px_picture_is_found_once_at_its_place(pack, seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, Shot.FULL)
    side = round(256 * FACE_PX / scene.faces(Extent(256, 256)).faces[0].size_px)
    painted = paint(scene, side)
    picture = np.full((PICTURE_PX, PICTURE_PX, 3), 128, np.uint8)
    x, y = rng.integers(0, PICTURE_PX - side, 2)
    picture[y : y + side, x : x + side] = painted
    true = scene.faces(Extent(side, side)).faces[0].box
    true = Box(true.x0 + x, true.y0 + y, true.x1 + x, true.y1 + y)
    ((face,),) = pack.find_faces([picture])
    assert abs(true.height - FACE_PX) < 6 or abs(true.width - FACE_PX) < 6
    assert face.box.iou(true) > 0.5
    inside = true.grown(0.2)
    assert ((face.landmarks > [inside.x0, inside.y0]) & (face.landmarks < [inside.x1, inside.y1])).all()
    assert np.isfinite(face.embeddings[pack.recogniser]).all()
