"""Builds a small face analysis pack in insightface's own layout, out of weights that a registry package ships.

`det_mtcnn.onnx` is SCRFD-shaped (three strides, two anchors, boxes and five points) and really finds faces: MTCNN's
three networks run over the whole picture as convolutions, and a face counts where all three agree. `rec_thumbnail.onnx`
is ArcFace-shaped (112x112 to 512): the aligned face as a grey thumbnail. It tells the people of a test apart, no more.

The weights are those of facenet-pytorch's wheel (MIT); only the files are read, the package is never imported.
"""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
STRIDES = (8, 16, 32)
WINDOW = 48  # pixels that O-Net looks at; R-Net sees the same window at half the size, P-Net at a quarter
STEP = 8  # pixels from one window of O-Net to the next
FACE = ((12, 16), (104, 96))  # rows and columns of an aligned face that are neither hair nor background
THUMBNAIL = (16, 32)
SHARPNESS = 8  # power of the three scores' product: puts the 0.5 of insightface's threshold where product 0.92 was


def mtcnn_weights() -> dict[str, dict[str, np.ndarray]]:
    """The state dicts of P-Net, R-Net and O-Net, by their file's name."""
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None:
        raise ModuleNotFoundError("the tests need MTCNN's weights: pip install --no-deps facenet-pytorch==2.6.0")
    folder = Path(package.submodule_search_locations[0]) / "data"
    return {
        name: {
            k: v.numpy() for k, v in torch.load(folder / f"{name}.pt", weights_only=True, map_location="cpu").items()
        }
        for name in ("pnet", "rnet", "onet")
    }


class Graph:
    """Collects ONNX nodes; every call returns the name of the node's output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value, dtype=np.float32) -> str:
        array = np.asarray(value, dtype=dtype)
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def __call__(self, op: str, *inputs: str, output: str | None = None, **attributes) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def conv(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        return self("Conv", x, self.constant(weight), self.constant(bias))

    def prelu(self, x: str, slope: np.ndarray) -> str:
        return self("PRelu", x, self.constant(slope[:, None, None]))

    def layer(self, x: str, weights: dict[str, np.ndarray], number: str) -> str:
        x = self.conv(x, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"])
        return self.prelu(x, weights[f"prelu{number}.weight"])

    def pool(self, x: str, size: int) -> str:
        return self("MaxPool", x, kernel_shape=[size, size], strides=[2, 2], ceil_mode=1)

    def save(self, path: Path, inputs: list, outputs: list) -> Path:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def as_convolution(weight: np.ndarray, size: int) -> np.ndarray:
    """A dense layer over (width, height, channel), MTCNN's order, as a kernel (out, channel, height, width)."""
    return weight.reshape(len(weight), size, size, -1).transpose(0, 3, 2, 1).copy()


def pnet(g: Graph, x: str, w: dict) -> str:
    x = g.pool(g.layer(x, w, "1"), 2)
    x = g.layer(g.layer(x, w, "2"), w, "3")
    return g("Softmax", g.conv(x, w["conv4_1.weight"], w["conv4_1.bias"]), axis=1)


def rnet_features(g: Graph, x: str, w: dict) -> str:
    x = g.pool(g.layer(x, w, "1"), 3)
    x = g.layer(g.pool(g.layer(x, w, "2"), 3), w, "3")
    return g.prelu(g.conv(x, as_convolution(w["dense4.weight"], 3), w["dense4.bias"]), w["prelu4.weight"])


def onet_features(g: Graph, x: str, w: dict) -> str:
    x = g.pool(g.layer(x, w, "1"), 3)
    x = g.pool(g.layer(x, w, "2"), 3)
    x = g.layer(g.pool(g.layer(x, w, "3"), 2), w, "4")
    return g.prelu(g.conv(x, as_convolution(w["dense5.weight"], 3), w["dense5.bias"]), w["prelu5.weight"])


def head(g: Graph, x: str, w: dict, name: str) -> str:
    return g.conv(x, w[f"{name}.weight"], w[f"{name}.bias"])


def resized(g: Graph, x: str, scale: float, pad: int) -> str:
    """The picture at `scale`, with `pad` pixels of grey around it."""
    small = g("Resize", x, "", g.constant([1, 1, scale, scale]), mode="linear", antialias=1) if scale != 1 else x
    return g("Pad", small, g.constant([0, 0, pad, pad, 0, 0, pad, pad], np.int64))


def gathered(g: Graph, x: str, rows: str, columns: str) -> str:
    return g("Gather", g("Gather", x, rows, axis=2), columns, axis=3)


def cells(g: Graph, picture: str, axis: int, stride: int, finer: float) -> tuple[str, str]:
    """For each anchor of one axis: the nearest window, and how far, in strides, the window's centre is from the anchor.

    Windows lie `1 / finer` strides apart, window 0 around pixel 0, as SCRFD's first anchor is.
    """
    size = g("Gather", g("Shape", picture), g.constant(axis, np.int64), axis=0)
    count = g("Div", size, g.constant(stride, np.int64))
    anchors = g("Cast", g("Range", g.constant(0, np.int64), count, g.constant(1, np.int64)), to=TensorProto.FLOAT)
    windows = g("Round", g("Mul", anchors, g.constant(finer)))
    offset = g("Sub", anchors, g("Div", windows, g.constant(finer)))
    return g("Cast", windows, to=TensorProto.INT64), offset


def anchor_outputs(g: Graph, picture: str, weights: dict, stride: int, finer: float) -> tuple[str, str, str]:
    """Scores (1, 1, h, w), distances (1, 4, h, w), points (1, 10, h, w) of one anchor, in strides, as SCRFD's are."""
    scale = STEP / stride * finer
    rows, dy = cells(g, picture, 2, stride, finer)
    columns, dx = cells(g, picture, 3, stride, finer)
    o = onet_features(g, resized(g, picture, scale, WINDOW // 2), weights["onet"])
    r = rnet_features(g, resized(g, picture, scale / 2, WINDOW // 4), weights["rnet"])
    p = pnet(g, resized(g, picture, scale / 4, WINDOW // 8), weights["pnet"])
    score = None
    for softmax in (
        g("Softmax", head(g, o, weights["onet"], "dense6_1"), axis=1),
        g("Softmax", head(g, r, weights["rnet"], "dense5_1"), axis=1),
        p,
    ):
        face = gathered(g, g("Gather", softmax, g.constant([1], np.int64), axis=1), rows, columns)
        score = face if score is None else g("Mul", score, face)
    score = g("Pow", score, g.constant(float(SHARPNESS)))

    size = WINDOW / STEP / finer  # of the window, in strides
    dx = g("Unsqueeze", dx, g.constant([0, 1, 2], np.int64))
    dy = g("Unsqueeze", dy, g.constant([0, 1, 3], np.int64))
    box = gathered(g, head(g, o, weights["onet"], "dense6_2"), rows, columns)
    points = gathered(g, head(g, o, weights["onet"], "dense6_3"), rows, columns)

    def channel(x: str, index: int) -> str:
        return g("Gather", x, g.constant([index], np.int64), axis=1)

    def from_anchor(x: str, index: int, start: float, offset: str) -> str:
        """Where a relative coordinate of the window, from its origin `start`, lies as seen from the anchor."""
        inside = g("Mul", g("Add", channel(x, index), g.constant(start)), g.constant(size))
        return g("Sub", inside, offset)

    left, top = (g("Neg", from_anchor(box, i, -0.5, d)) for i, d in ((0, dx), (1, dy)))
    right, bottom = (from_anchor(box, i, 0.5, d) for i, d in ((2, dx), (3, dy)))
    distances = g("Concat", left, top, right, bottom, axis=1)
    xs_and_ys = [from_anchor(points, i + 5 * axis, -0.5, (dx, dy)[axis]) for i in range(5) for axis in (0, 1)]
    return score, distances, g("Concat", *xs_and_ys, axis=1)


def build_detector(path: Path, has_points: bool = True) -> Path:
    """Writes an SCRFD-shaped detector: windows of 48, 68, 96, 136, 192 and 272 pixels of the input."""
    weights, g = mtcnn_weights(), Graph()
    columns = {"score": 1, "box": 4, "points": 10} if has_points else {"score": 1, "box": 4}
    names: dict[str, list[str]] = {kind: [] for kind in columns}
    for stride in STRIDES:
        anchors = [anchor_outputs(g, "picture", weights, stride, finer) for finer in (1.0, 0.5**0.5)]
        for kind, parts in zip(columns, zip(*anchors, strict=True), strict=False):
            both = g("Concat", *(g("Unsqueeze", part, g.constant([1], np.int64)) for part in parts), axis=1)
            rows = g(
                "Transpose", both, perm=[0, 3, 4, 1, 2]
            )  # (1, anchors, values, h, w) -> (1, h, w, anchors, values)
            shape = g.constant([-1, columns[kind]], np.int64)
            names[kind].append(g("Reshape", rows, shape, output=f"{kind}_{stride}"))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, "height", "width"])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["anchors", columns[kind]])
        for kind in columns
        for name in names[kind]
    ]
    return g.save(path, [picture], outputs)


def build_recogniser(path: Path) -> Path:
    """Writes an ArcFace-shaped recogniser: the inner face as a grey thumbnail of 512 pixels, less its mean."""
    g = Graph()
    axes, start, end = (g.constant(values, np.int64) for values in ((2, 3), FACE[0], FACE[1]))
    grey = g("ReduceMean", g("Slice", "face", start, end, axes), g.constant([1], np.int64))
    height, width = FACE[1][0] - FACE[0][0], FACE[1][1] - FACE[0][1]
    scales = [1, 1, THUMBNAIL[0] / height, THUMBNAIL[1] / width]
    small = g("Flatten", g("Resize", grey, "", g.constant(scales), mode="linear", antialias=1))
    g("Sub", small, g("ReduceMean", small, g.constant([1], np.int64)), output="embedding")
    face = helper.make_tensor_value_info("face", TensorProto.FLOAT, ["batch", 3, 112, 112])
    return g.save(path, [face], [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 512])])


def build_landmarks(path: Path, num_numbers: int) -> Path:
    """Writes a model that insightface takes for one of dense landmarks, by the number of its outputs."""
    g = Graph()
    mean = g("Flatten", g("ReduceMean", "data", g.constant([1, 2, 3], np.int64)))
    g("Expand", mean, g.constant([1, num_numbers], np.int64), output="points")
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, 192, 192])
    return g.save(path, [data], [helper.make_tensor_value_info("points", TensorProto.FLOAT, ["batch", num_numbers])])


def build_pack(folder: Path) -> Path:
    """Writes the whole pack into `folder`, which insightface's `FaceAnalysis` loads as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    build_detector(folder / "det_mtcnn.onnx")
    build_recogniser(folder / "rec_thumbnail.onnx")
    return folder
