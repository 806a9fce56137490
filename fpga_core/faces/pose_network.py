"""Finds the 18 key points of a body with an ONNX pose model for one person, such as RTMPose, DWPose or ViTPose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..boundaries import guarded
from ..errors import UnknownFormatError
from ..packages import OPENCV, importing
from .face import Body
from .onnx_runtimes import OnnxNetwork, Provider
from .parsing import IMAGENET_DEVIATION, IMAGENET_MEAN
from .skeleton import NUM_KEYPOINTS

COCO_LAYOUTS = (17, 26, 133)
"""COCO, Halpe and COCO-WholeBody: their first 17 key points are the same."""

FROM_COCO = (0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""For each of OpenPose's key points that of COCO. COCO has no neck, which is the middle of the shoulders."""

NECK = 1
COCO_SHOULDERS = (5, 6)

OTHER_MODEL = "choose another file, such as RTMPose or ViTPose, exported to ONNX for one person"


class PoseNetwork(OnnxNetwork):
    """A pose model. Calling it with a picture returns the body of the person whom the picture shows."""

    def __call__(self, picture: np.ndarray) -> Body:
        """Finds the body of the person whom a picture shows.

        Args:
            picture: (height, width, 3) uint8 RGB. It is scaled to the model's input, with black on two sides.
        Returns:
            The key points in pixels of the picture.
        Raises:
            UnknownFormatError: what the model returns is not key points.
        """
        with importing(OPENCV):
            import cv2
        height, width = (side if isinstance(side, int) else 256 for side in self.session.get_inputs()[0].shape[2:])
        scale = min(height / picture.shape[0], width / picture.shape[1])
        size = max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1)
        x, y = (width - size[0]) // 2, (height - size[1]) // 2
        pixels = np.zeros((height, width, 3), np.uint8)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=method)
        inputs = (pixels.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION
        points = self._keypoints(np.moveaxis(inputs, -1, 0)[None].astype(np.float32))  # HWC -> BCHW
        points[:, 0] = (points[:, 0] * width - x) * picture.shape[1] / size[0]
        points[:, 1] = (points[:, 1] * height - y) * picture.shape[0] / size[1]
        return Body(_as_openpose(points).astype(np.float32))

    def _keypoints(self, inputs: np.ndarray) -> NDArray[np.float64]:
        """Returns (num_points, 3): x and y as fractions of the input, and the confidence."""
        with guarded(UnknownFormatError, f"the pose model '{self.name}' failed on a picture", advice=OTHER_MODEL):
            outputs = [
                np.asarray(output) for output in self.session.run(None, {self.session.get_inputs()[0].name: inputs})
            ]
        shapes = [output.shape for output in outputs]
        is_finite = all(np.isfinite(output).all() for output in outputs)
        if is_finite and len(shapes) == 2 and all(len(shape) == 3 for shape in shapes) and shapes[0][1] == shapes[1][1]:
            points = _from_classes(outputs[0][0], outputs[1][0])
        elif is_finite and len(shapes) == 1 and len(shapes[0]) == 4:
            points = _from_heat_maps(outputs[0][0])
        else:
            points = np.zeros((0, 3))
        if len(points) not in (NUM_KEYPOINTS, *COCO_LAYOUTS):
            raise UnknownFormatError(
                f"the pose model '{self.name}' returns {shapes}, which are not finite heat maps (1, points, height, "
                f"width) or classes of x and y (1, points, places) of {NUM_KEYPOINTS}, 17, 26 or 133 points; "
                f"{OTHER_MODEL}"
            )
        return points


def load_pose_network(path: Path, provider: Provider = Provider.AUTO) -> PoseNetwork:
    """Opens a pose model.

    Args:
        path: an ONNX file that maps (1, 3, height, width) to heat maps (1, points, rows, columns), as ViTPose, or to
            classes of x and of y (1, points, places), as RTMPose and DWPose. There are 18 points (OpenPose), 17 (COCO),
            26 (Halpe) or 133 (COCO-WholeBody).
        provider: the device to run on.
    Returns:
        The network; its `notes` say what differs from the request.
    Raises:
        MissingPackageError: onnxruntime is missing or broken.
        CheckpointReadError: the file is damaged.
        UnknownFormatError: it does not take pictures.
    """
    network = PoseNetwork(path, provider)
    takes = [list(entry.shape) for entry in network.session.get_inputs()]
    if len(takes) != 1 or len(takes[0]) != 4 or takes[0][1] != 3:
        raise UnknownFormatError(
            f"'{path.name}' takes {takes}, but a pose model takes (1, 3, height, width); {OTHER_MODEL}"
        )
    return network


def _from_classes(xs: np.ndarray, ys: np.ndarray) -> NDArray[np.float64]:
    """Source: SimCC, Li et al. 2022, as in RTMPose: the confidence is the smaller of both maxima."""
    confidence = np.minimum(xs.max(axis=1), ys.max(axis=1))
    x, y = (places.argmax(axis=1) / places.shape[1] for places in (xs, ys))
    return np.stack([x, y, confidence.clip(0, 1)], axis=1).astype(np.float64)


def _from_heat_maps(maps: np.ndarray) -> NDArray[np.float64]:
    """The highest place, a quarter of a cell towards its higher neighbour.

    Source: Newell et al. 2016, "Stacked hourglass networks", section 3.3.
    """
    num, rows, columns = maps.shape
    flat: NDArray[np.float32] = np.reshape(maps, (num, rows * columns)).astype(np.float32)
    y, x = np.divmod(flat.argmax(axis=1), columns)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    each = np.arange(num, dtype=np.int64)
    towards_x = np.sign(padded[each, y + 1, x + 2] - padded[each, y + 1, x])
    towards_y = np.sign(padded[each, y + 2, x + 1] - padded[each, y, x + 1])
    places = [(x + 0.5 + towards_x / 4) / columns, (y + 0.5 + towards_y / 4) / rows, flat.max(axis=1).clip(0, 1)]
    return np.stack(places, axis=1).astype(np.float64)


def _as_openpose(points: np.ndarray) -> NDArray[np.float64]:
    if len(points) == NUM_KEYPOINTS:
        return points
    shoulders = points[list(COCO_SHOULDERS)]
    body = points[list(FROM_COCO)]
    body[NECK] = [*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min()]
    return body
