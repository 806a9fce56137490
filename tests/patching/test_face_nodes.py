"""The face nodes beside ComfyUI's own: its validation, its payloads, and the nodes that take ours."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_api.v0_0_2 import io
from comfy_extras.nodes_mediapipe import MediaPipeFaceLandmarker
from comfy_extras.nodes_rtdetr import DrawBBoxes
from comfy_extras.nodes_sdpose import CropByBBoxes, SDPoseDrawKeypoints, _to_openpose_frames
from execution import validate_prompt
from fpga.devtools.client import api_node
from fpga.fpga_core.errors import InvalidInputError
from fpga.nodes.faces import NODES, DetectFaces, DrawLandmarks

import nodes as comfy_nodes

ROOT = Path(__file__).parents[2]
MESH = np.array(json.loads((ROOT / "tests" / "support" / "astronaut_face_mesh.json").read_text())["points"], np.float32)
DETECT = {"order": "largest_first", "min_size_px": 0}
DRAW = {"style": "openpose", "width": 0, "height": 0, "line_width": 1.0, "min_confidence": 0.3}


def detect(image: torch.Tensor, **inputs) -> tuple:
    return DetectFaces.execute(image, **{**DETECT, **inputs}).result


def draw(faces, what: str, **inputs) -> torch.Tensor:
    return DrawLandmarks.execute(what, faces=faces, **{**DRAW, **inputs}).result[0]


def sdpose_frames(num_frames: int = 1, width: int = 512, height: int = 512) -> tuple[list[dict], np.ndarray]:
    """POSE_KEYPOINT by ComfyUI's own writer, and the COCO-WholeBody points in it (body, feet, face, hands)."""
    coco_body = np.array(
        [
            [256, 100],
            [276, 85],
            [236, 85],
            [296, 90],
            [216, 90],
            [322, 175],
            [190, 175],
            [365, 265],
            [150, 260],
            [395, 345],
            [120, 350],
            [290, 340],
            [222, 340],
            [305, 425],
            [210, 420],
            [315, 495],
            [200, 495],
        ]
    )
    face = np.stack([MESH[:68, 0] + 30, MESH[:68, 1]], axis=1)
    points = np.concatenate([coco_body, np.zeros((6, 2)), face, np.zeros((42, 2))])
    scores = np.concatenate([np.full(17, 0.9), np.zeros(6), np.full(68, 0.8), np.zeros(42)])
    return _to_openpose_frames([[points]] * num_frames, [[scores]] * num_frames, height, width), points


class MeshModel:
    """What MediaPipeFaceLandmarker asks of its model; it always sees the astronaut's face."""

    connection_sets: dict = {}
    canonical_data = {
        "canonical_vertices": np.concatenate([MESH[:468], MESH[:468, :1] * 0.1], axis=1),
        "procrustes_indices": np.arange(0, 468, 20),
        "procrustes_weights": np.ones(24),
    }

    def detect_batch(self, images, **_options) -> list[list[dict]]:
        depth = np.concatenate([MESH, MESH[:, :1] * 0.1], axis=1)
        face = {
            "bbox_xyxy": np.array([*MESH.min(0), *MESH.max(0)], np.float32),
            "landmarks_xy": MESH,
            "landmarks_3d": depth,
            "blendshapes": {},
            "presence": 9.0,
            "score": 0.97,
        }
        return [[dict(face)] for _ in images]


def mediapipe_landmarks(image: torch.Tensor) -> tuple:
    return MediaPipeFaceLandmarker.execute(MeshModel(), image, "short", 1, 0.5, "empty").result


def test_every_input_and_output_is_explained_and_translated():
    for node in NODES:
        schema = node.define_schema()
        assert schema.description and schema.search_aliases
        assert (ROOT / "web" / "docs" / f"{schema.node_id}.md").is_file()
        for socket in (*schema.inputs, *schema.outputs):
            assert socket.tooltip, socket
        for language in ("en", "zh"):
            texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text())[schema.node_id]
            assert texts["inputs"].keys() == {socket.id for socket in schema.inputs}
            assert texts["outputs"].keys() == {str(place) for place in range(len(schema.outputs))}


class Sources(io.ComfyNode):
    """Something to connect."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        types = ("FPGA_FACE_ANALYSIS", "FACE_LANDMARKS", "POSE_KEYPOINT")
        outputs = [io.Image.Output(), *(io.Custom(name).Output() for name in types)]
        return io.Schema(node_id="TestSources", inputs=[], outputs=outputs)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput()


def problems(monkeypatch, **inputs) -> str:
    """What ComfyUI's own validation says to a graph with these inputs of DetectFaces; empty where it is valid."""
    for node in (Sources, DetectFaces):
        monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, node.define_schema().node_id, node)
    graph = {
        "1": api_node("TestSources"),
        "2": api_node("FPGA_DetectFaces", image=["1", 0], **(DETECT | inputs)),
        "3": api_node("PreviewImage", images=["2", 3]),
    }
    is_valid, _, _, errors = asyncio.run(validate_prompt("test", graph, None))
    assert is_valid == (not errors)
    return json.dumps(errors)


def test_comfyui_refuses_a_graph_without_exactly_one_source(monkeypatch):
    sources = {"face_analysis": ["1", 1], "face_landmarks": ["1", 2], "pose_keypoints": ["1", 3]}
    for name, link in sources.items():
        assert problems(monkeypatch, **{name: link}) == "{}"
    assert "face_analysis, face_landmarks, pose_keypoints: none is connected" in problems(monkeypatch)
    assert "face_analysis and face_landmarks and pose_keypoints are connected" in problems(monkeypatch, **sources)


def test_comfyui_still_checks_the_other_inputs(monkeypatch):
    pose = {"pose_keypoints": ["1", 3]}
    assert "Return type mismatch" in problems(monkeypatch, pose_keypoints=["1", 2])
    assert "random" in problems(monkeypatch, **pose, order="random")
    assert "min_size_px" in problems(monkeypatch, **pose, min_size_px=-1)


def test_execute_refuses_it_too():
    with pytest.raises(InvalidInputError, match="none is connected"):
        detect(torch.zeros(1, 8, 8, 3))


def test_sdpose_keypoints_become_a_face_and_a_body():
    frames, coco = sdpose_frames()
    faces, boxes, masks, preview = detect(torch.zeros(1, 512, 512, 3), pose_keypoints=frames)
    (face,), (body,) = faces[0].faces, faces[0].bodies
    assert np.allclose(face.landmarks, coco[23:91], atol=1e-3)
    assert face.score == pytest.approx(0.8)
    shoulders_eyes = [(2, 6), (5, 5), (14, 2), (15, 1), (16, 4), (17, 3), (0, 0)]  # OpenPose's number, COCO's
    for openpose, number in shoulders_eyes:
        assert np.allclose(body.keypoints[openpose, :2], coco[number], atol=1e-3)
    assert np.allclose(body.keypoints[1, :2], (coco[5] + coco[6]) / 2)
    assert len(boxes[0]) == 1 and masks.shape == (1, 512, 512) and preview.shape == (1, 512, 512, 3)


def test_our_body_is_sdposes_own_drawing_with_darker_limbs():
    """SDPoseDrawKeypoints draws the same shapes in full colours, cut to whole pixels: same hues, same places."""
    frames, _ = sdpose_frames()
    (faces, *_) = detect(torch.zeros(1, 512, 512, 3), pose_keypoints=frames)
    ours = draw(faces, "body")[0].numpy()
    theirs = SDPoseDrawKeypoints.execute(frames, True, False, False, False, 4, 3, 0.3, True).result[0][0].numpy()
    is_ours, is_theirs = ours.max(-1) > 0.3, theirs.max(-1) > 0.3
    assert (is_ours & is_theirs).sum() / (is_ours | is_theirs).sum() > 0.85
    both = is_ours & is_theirs
    same_hue = np.abs(ours / ours.max(-1, keepdims=True).clip(1e-3) - theirs).max(-1) < 0.1
    assert same_hue[both].mean() > 0.95


def test_our_face_dots_are_where_sdpose_draws_them():
    frames, _ = sdpose_frames()
    (faces, *_) = detect(torch.zeros(1, 512, 512, 3), pose_keypoints=frames)
    ours = draw(faces, "face")[0, ..., 0] > 0.5
    theirs = SDPoseDrawKeypoints.execute(frames, False, False, True, False, 4, 3, 0.3, False).result[0][0, ..., 0] > 0.5
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.75  # theirs are cut to whole pixels


def test_mediapipe_landmarks_of_a_batch():
    image = torch.zeros(3, 512, 512, 3)
    landmarks, _ = mediapipe_landmarks(image)
    faces, boxes, masks, _ = detect(image, face_landmarks=landmarks)
    assert [np.abs(picture.faces[0].landmarks - MESH).max() for picture in faces] == [0, 0, 0]
    assert faces[0].faces[0].score == pytest.approx(0.97)
    assert masks.shape == (3, 512, 512)
    assert [len(frame) for frame in boxes] == [1, 1, 1]


def test_boxes_have_the_form_of_mediapipes_own():
    image = torch.zeros(1, 512, 512, 3)
    landmarks, native = mediapipe_landmarks(image)
    boxes = detect(image, face_landmarks=landmarks)[1]
    (ours,), (theirs,) = boxes[0], native[0]
    assert ours.keys() == theirs.keys()
    for key in ("x", "y", "width", "height"):
        assert ours[key] == pytest.approx(theirs[key], abs=1.5)
        assert isinstance(ours[key], int)


def test_native_nodes_take_our_boxes():
    image = torch.rand(2, 512, 512, 3)
    landmarks, _ = mediapipe_landmarks(image)
    boxes = detect(image, face_landmarks=landmarks)[1]
    (crops,) = CropByBBoxes.execute(image, boxes, 64, 64, 0, "stretch").result
    box = boxes[1][0]
    region = image[1, box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]
    assert crops.shape == (2, 64, 64, 3)
    assert crops[1].mean().item() == pytest.approx(region.mean().item(), abs=0.01)
    (drawn,) = DrawBBoxes.execute(boxes, image).result
    assert not torch.equal(drawn[0, box["y"], box["x"] : box["x"] + 20], image[0, box["y"], box["x"] : box["x"] + 20])


def test_nobody_gives_defined_empty_results():
    image = torch.rand(2, 33, 47, 4)
    nobody = [{"canvas_width": 47, "canvas_height": 33, "people": []}] * 2
    faces, boxes, masks, preview = detect(image, pose_keypoints=nobody)
    assert [picture.faces for picture in faces] == [(), ()]
    assert boxes == [[], []]
    assert masks.shape == (1, 33, 47) and not masks.any()
    assert (preview - image[..., :3]).abs().max() <= 0.5 / 255 + 1e-6
    assert not draw(faces, "face_and_body").any()


def test_face_and_body_in_one_picture_from_two_sources():
    """MediaPipe's face with SDPose's body, drawn at another size."""
    image = torch.zeros(1, 512, 512, 3)
    frames, _ = sdpose_frames()
    (faces, *_) = detect(image, face_landmarks=mediapipe_landmarks(image)[0])
    both = draw(faces, "face_and_body", skeleton=frames, width=768, height=640)
    assert both.shape == (1, 640, 768, 3)
    body_only = draw(faces, "body", skeleton=frames, width=768, height=640)
    face_only = draw(faces, "face", width=768, height=640)
    assert torch.equal(both[face_only.amax(-1) == 0], body_only[face_only.amax(-1) == 0])
    assert torch.equal(both[face_only.amax(-1) == 1], face_only[face_only.amax(-1) == 1])
