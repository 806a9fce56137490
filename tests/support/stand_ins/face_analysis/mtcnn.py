"""MTCNN (Zhang et al. 2016) behind the pack's FaceAnalyzer protocol."""

import sys
from types import ModuleType

import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils import detect_face as cascade


def loaded_module(name: str) -> ModuleType:
    """A module of the pack, found where it was loaded.

    ComfyUI names a custom node package by its folder's path (dots replaced), tests name it `fpga`: only the end of the
    name is known, and importing it under a second name would make a second, different Face class.
    """
    found = [module for key, module in sys.modules.items() if key.endswith(f".{name}")]
    if len(found) != 1:
        raise ImportError(
            f"{len(found)} modules named *.{name} are loaded, not one: is the pack in custom_nodes, once?"
        )
    return found[0]


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression within each group; indices of the kept boxes by falling score."""
    order = scores.argsort(descending=True)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    keep = []
    while len(order):
        first, rest = order[0], order[1:]
        keep.append(first)
        overlap = torch.minimum(boxes[first, 2:], boxes[rest, 2:]) - torch.maximum(boxes[first, :2], boxes[rest, :2])
        overlap = overlap.clamp(min=0).prod(dim=1)
        iou = overlap / (area[first] + area[rest] - overlap)
        order = rest[(iou <= iou_threshold) | (groups[rest] != groups[first])]
    return torch.stack(keep) if keep else order


# torchvision has no kernels beside a CPU torch, and its suppression is the only thing that the cascade takes from it.
cascade.batched_nms = batched_nms


class MtcnnAnalyzer:
    """A FaceAnalyzer: boxes and five landmarks; no recogniser."""

    description = "MTCNN (facenet-pytorch) on the CPU"
    recogniser = None

    def __init__(self, threshold: float = 0.9) -> None:
        self._threshold = threshold
        self._detector = MTCNN(keep_all=True, device="cpu")

    def find_faces(self, pictures):
        """Faces of each (height, width, 3) uint8 RGB picture."""
        return [self._find(np.ascontiguousarray(picture)) for picture in pictures]

    def _find(self, picture: np.ndarray) -> tuple:
        Face = loaded_module("fpga_core.faces.face").Face
        Box = loaded_module("fpga_core.geometry").Box
        if min(picture.shape[:2]) < self._detector.min_face_size:
            return ()
        boxes, scores, landmarks = self._detector.detect(picture, landmarks=True)
        if boxes is None:
            return ()
        return tuple(
            Face(Box(*map(float, box)), float(score), np.asarray(points, dtype=np.float32))
            for box, score, points in zip(boxes, scores, landmarks, strict=True)
            if score >= self._threshold
        )
