"""Face analysis packs whose networks run, but return what cannot be a face: a named error, and the server lives on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from fpga.fpga_core.errors import CheckpointReadError, DetectionError
from fpga.fpga_core.faces.detection import detect_faces
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.faces.onnx_runtimes import Provider
from onnx import TensorProto, helper, numpy_helper
from onnx_pack import OPSET, build_recogniser

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated", "ignore::RuntimeWarning")

SIDE, STRIDES = 192, (8, 16, 32)
PICTURE = np.full((240, 320, 3), 90, np.uint8)
NAN, INF = float("nan"), float("inf")


def write_constants(path: Path, shape: list, outputs: dict[str, np.ndarray]) -> None:
    """Writes a network that returns the same numbers for every input."""
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(v)) for name, v in outputs.items()]
    given = helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(v.shape)) for name, v in outputs.items()]
    graph = helper.make_graph(nodes, path.stem, [given], gives)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8), path)


def write_detector(
    path: Path, *, score: float = 0.9, distance: float = 3.0, point: float = 1.0, columns: int = 10
) -> None:
    """Writes an SCRFD-shaped network that reports one face in the middle of its finest grid."""
    outputs = {}
    for name, width, value in (("score", 1, score), ("box", 4, distance), ("points", columns, point)):
        for stride in STRIDES:
            rows = np.zeros((2 * (SIDE // stride) ** 2, width), np.float32)
            if stride == STRIDES[0]:
                rows[len(rows) // 2 + SIDE // stride] = value
            outputs[f"{name}_{stride}"] = rows
    write_constants(path, [1, 3, SIDE, SIDE], outputs)


def test_the_stand_in_finds_its_face(tmp_path):
    write_detector(tmp_path / "det.onnx")
    build_recogniser(tmp_path / "rec.onnx")
    (found,) = detect_faces([PICTURE], load_insightface_pack(tmp_path, Provider.CPU))
    assert len(found.faces) == 1 and 60 < found.faces[0].size_px < 100


BROKEN = {
    "boxes a million pixels wide": {"distance": 1e6 / STRIDES[0]},
    "boxes that are NaN": {"distance": NAN},
    "infinite boxes": {"distance": INF},
    "infinite scores": {"score": INF},
    "points that are infinite": {"point": INF},
    "points far away": {"point": 1e6},
    "points of another number": {"columns": 6},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_detector_that_returns_nonsense_is_named(tmp_path, kind):
    write_detector(tmp_path / "det.onnx", **BROKEN[kind])
    pack = load_insightface_pack(tmp_path, Provider.CPU)
    with pytest.raises(DetectionError, match=f"'{tmp_path.name} on CPUExecutionProvider'.*use another face analysis"):
        detect_faces([PICTURE], pack)


@pytest.mark.parametrize("embedding", [np.ones((1, 128)), np.full((1, 512), NAN), np.ones((3, 7, 5))])
def test_a_recogniser_that_returns_nonsense_is_named(tmp_path, embedding):
    write_detector(tmp_path / "det.onnx")
    write_constants(tmp_path / "rec.onnx", [1, 3, 112, 112], {"embedding": embedding.astype(np.float32)})
    with pytest.raises((DetectionError, CheckpointReadError), match="use another face analysis|keep only a detector"):
        detect_faces([PICTURE], load_insightface_pack(tmp_path, Provider.CPU))
