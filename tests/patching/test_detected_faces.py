"""A real detector on real photographs, through the nodes: what the demo does."""

import json
from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest
import torch
from fpga.fpga_core.faces.face import Face, FaceAnalyzer
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.faces.landmarks import as_ibug68, face_outline, five_points
from fpga.fpga_core.faces.onnx_runtimes import Provider
from fpga.fpga_core.geometry import Box
from fpga.nodes.faces import DetectFaces, DrawLandmarks
from onnx_pack import build_pack
from skimage import data

SUPPORT = Path(__file__).parents[1] / "support"

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated")


@pytest.fixture(scope="module")
def analyser(tmp_path_factory) -> FaceAnalyzer:
    return load_insightface_pack(build_pack(tmp_path_factory.mktemp("models") / "small_pack"), Provider.CPU)


@pytest.fixture(scope="module")
def group() -> torch.Tensor:
    """insightface's photograph of six people, as an IMAGE."""
    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    return torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy())[None].float() / 255


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut())[None].float() / 255


def detect(image, analyser, order="largest_first", min_size_px=0) -> tuple:
    return DetectFaces.execute(image, order, min_size_px, face_analysis=analyser).result


def test_six_people_from_left_to_right(group, analyser):
    assert isinstance(analyser, FaceAnalyzer)
    faces, boxes, masks, preview = detect(group, analyser, "left_to_right")
    (picture,) = faces
    assert len(picture.faces) == 6
    assert all(isinstance(face, Face) for face in picture.faces)
    assert [box["x"] for box in boxes[0]] == sorted(box["x"] for box in boxes[0])
    assert masks.shape == (6, *group.shape[1:3]) and preview.shape == group.shape
    for face, mask in zip(picture.faces, masks, strict=True):
        for x, y in face.landmarks:
            assert face.box.x0 < x < face.box.x1 and face.box.y0 < y < face.box.y1
            assert mask[int(y), int(x)] > 0
    assert masks.sum(0).max() <= 1.001  # nobody's face touches another's
    sizes = [face.size_px for face in picture.faces]
    assert len(detect(group, analyser, min_size_px=sorted(sizes)[3])[0][0].faces) == 3


def test_two_detectors_agree_on_the_astronaut(astronaut, analyser):
    """MTCNN's box and five points against those that we make of MediaPipe's mesh and of its 68 points."""
    mesh = np.array(json.loads((SUPPORT / "astronaut_face_mesh.json").read_text())["points"], dtype=np.float32)
    ((face,),) = (picture.faces for picture in detect(astronaut, analyser)[0])
    distance = np.linalg.norm(five_points(mesh) - face.landmarks, axis=1)
    eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])
    assert distance.max() < 0.15 * eyes
    outline = face_outline(as_ibug68(mesh))
    box = Box(*outline.min(0).tolist(), *outline.max(0).tolist())
    assert box.iou(face.box) > 0.85


def test_a_batch_with_an_alpha_channel_of_which_one_shows_nobody(astronaut, analyser):
    image = torch.cat([astronaut, torch.full_like(astronaut, 0.5), astronaut.flip(2)])
    image = torch.cat([image, torch.ones_like(image[..., :1])], dim=-1)
    faces, boxes, masks, preview = detect(image, analyser)
    assert [len(picture.faces) for picture in faces] == [1, 0, 1]
    assert masks.shape[0] == 2 and preview.shape == (3, 512, 512, 3)
    left, right = boxes[0][0], boxes[2][0]
    assert left["x"] + left["width"] / 2 == pytest.approx(512 - right["x"] - right["width"] / 2, abs=8)
    assert torch.equal(preview[1], torch.full((512, 512, 3), 128 / 255))


@pytest.mark.parametrize("height, width", [(1, 1), (19, 400), (97, 131), (301, 203)])
def test_odd_sizes(astronaut, analyser, height, width):
    image = torch.nn.functional.interpolate(astronaut.movedim(-1, 1), (height, width), mode="area").movedim(1, -1)
    faces, _, masks, preview = detect(image, analyser)
    assert masks.shape[1:] == (height, width) and preview.shape == (1, height, width, 3)
    assert len(faces[0].faces) == (height > 90)


def test_the_condition_image_of_the_group(group, analyser):
    """Six times five dots where the landmarks are, at the size asked for."""
    (faces, *_) = detect(group, analyser)
    (image,) = DrawLandmarks.execute("face", "openpose", 640, 448, 1.0, 0.3, faces=faces).result
    scale = np.array([640 / group.shape[2], 448 / group.shape[1]])
    for face in faces[0].faces:
        for x, y in face.landmarks * scale:
            assert image[0, int(y), int(x)].min() > 0.9
    num_dots, _ = cv2.connectedComponents((image[0, ..., 0].numpy() > 0.5).astype(np.uint8))
    assert num_dots - 1 == 30
