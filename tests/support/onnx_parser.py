"""Writes a small real ONNX network in the layout of a BiSeNet face parser."""

import numpy as np
import onnx
from fpga.fpga_core.faces.parsing import IMAGENET_DEVIATION, IMAGENET_MEAN
from onnx import TensorProto, helper, numpy_helper


def write_network(path, side=32, num_classes=19, dtype=TensorProto.FLOAT, outputs=1) -> None:
    """Red pixels are class 1 (skin), green ones 17 (hair), blue ones 11 (mouth), all else 0; on normalised input.

    The logits are a 1x1 convolution that undoes the normalisation: class c scores the colour's value.
    """
    weight, bias = np.zeros((num_classes, 3, 1, 1), np.float32), np.zeros(num_classes, np.float32)
    bias[0] = 0.5
    for channel, number in ((0, 1), (1, 17), (2, 11)):
        if number < num_classes:
            weight[number, channel] = IMAGENET_DEVIATION[channel]
            bias[number] = IMAGENET_MEAN[channel]
    shape = [1, num_classes, side, side]
    names = ["parsed", "aux"][:outputs]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "w", "b"], [name]) for name in names],
        "parser",
        [helper.make_tensor_value_info("picture", dtype, [1, 3, side, side])],
        [helper.make_tensor_value_info(name, dtype, shape) for name in names],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
