"""Face parsing with a small real ONNX network in BiSeNet's layout, run by onnxruntime itself."""

import numpy as np
import onnx
import pytest
import torch
from fpga.fpga_core.errors import CheckpointReadError, InvalidInputError, UnknownFormatError
from fpga.fpga_core.faces.onnx_runtimes import Provider
from fpga.fpga_core.faces.parsing import FACE_CLASSES, load_face_parser
from onnx import TensorProto, helper, numpy_helper
from onnx_parser import write_network


@pytest.mark.parametrize(("side", "outputs"), [(32, 1), ("side", 1), (32, 2)])
def test_skin_and_mouth_are_face_and_hair_is_not(tmp_path, side, outputs):
    write_network(tmp_path / "net.onnx", side, outputs=outputs)
    parser = load_face_parser(tmp_path / "net.onnx", Provider.CPU)
    crops = torch.zeros(2, 64, 64, 3)
    crops[0, 8:24, 8:40, 0] = 1  # skin
    crops[0, 24:40, 8:40, 1] = 1  # hair
    crops[1, 40:56, 16:32, 2] = 1  # mouth
    masks = parser(crops)
    expected = torch.zeros(2, 64, 64)
    expected[0, 8:24, 8:40] = 1
    expected[1, 40:56, 16:32] = 1
    assert torch.equal(masks, expected)
    assert parser.description == "net.onnx on CPUExecutionProvider" and parser.notes == ()


def test_the_face_leaves_out_ears_hair_neck_and_clothes():
    names = [
        "background",
        "skin",
        "l_brow",
        "r_brow",
        "l_eye",
        "r_eye",
        "glasses",
        "l_ear",
        "r_ear",
        "earring",
        "nose",
        "mouth",
        "u_lip",
        "l_lip",
        "neck",
        "necklace",
        "cloth",
        "hair",
        "hat",
    ]
    assert [names[number] for number in FACE_CLASSES] == [
        "skin",
        "l_brow",
        "r_brow",
        "l_eye",
        "r_eye",
        "glasses",
        "nose",
        "mouth",
        "u_lip",
        "l_lip",
    ]


def test_files_that_are_no_parser_are_refused(tmp_path):
    write_network(tmp_path / "other.onnx", num_classes=18)
    with pytest.raises(UnknownFormatError, match=r"'other.onnx' maps .* to \[1, 18, 32, 32\]; a face parser maps"):
        load_face_parser(tmp_path / "other.onnx", Provider.CPU)
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(CheckpointReadError, match="'broken.onnx' cannot be read as ONNX.*download it again"):
        load_face_parser(tmp_path / "broken.onnx", Provider.CPU)
    with pytest.raises(CheckpointReadError, match="'absent.onnx' cannot be read"):
        load_face_parser(tmp_path / "absent.onnx", Provider.CPU)


def test_half_precision_inputs_are_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x"] * 6 + ["one"], ["y"], axis=1)],
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 19, 8, 8])],
        [numpy_helper.from_array(np.zeros((1, 1, 8, 8), np.float16), "one")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "h.onnx")
    )
    with pytest.raises(InvalidInputError, match="export it with float32 inputs"):
        load_face_parser(tmp_path / "h.onnx", Provider.CPU)
