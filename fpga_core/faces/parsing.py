"""Finds the face pixels of a crop with BiSeNet face parsing (Yu et al. 2018), from an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..boundaries import guarded
from ..errors import InvalidInputError, UnknownFormatError
from .onnx_runtimes import OnnxNetwork, Provider

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NUM_CLASSES = 19
FACE_CLASSES = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13)
"""Skin, brows, eyes, glasses, nose, mouth and lips of the CelebAMask-HQ classes; no ears, hair, neck, hats or cloth."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
DEFAULT_SIDE_PX = 512

OTHER_PARSER = "choose another file, such as BiSeNet trained on CelebAMask-HQ"


class FaceParsingNetwork(OnnxNetwork):
    """A BiSeNet for the 19 classes of CelebAMask-HQ. Calling it with crops returns a mask of the face in each."""

    @property
    def info(self) -> str:
        """A description of what was loaded, one fact per line."""
        return "\n".join((self.description, *self.notes))

    def __call__(self, crops: Tensor) -> Tensor:
        """Parses crops of faces.

        Args:
            crops: (num_faces, height, width, 3) RGB in [0, 1].
        Returns:
            (num_faces, height, width) float32, 1 on the face and 0 elsewhere.
        """
        height, width = (
            side if isinstance(side, int) else DEFAULT_SIDE_PX for side in self.session.get_inputs()[0].shape[2:]
        )
        resized = F.interpolate(crops.movedim(-1, 1).float(), (height, width), mode="bilinear", antialias=True)
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        inputs = ((resized - mean) / deviation).numpy().astype(np.float32)
        # One at a time, because most files have a fixed batch of one. The other outputs are auxiliary heads from
        # training.
        logits = np.concatenate([self._logits(picture) for picture in inputs])
        classes = torch.as_tensor(logits.argmax(axis=1))
        face = torch.isin(classes, torch.tensor(FACE_CLASSES)).float()
        return F.interpolate(face[:, None], crops.shape[1:3], mode="bilinear", antialias=True)[:, 0].round()

    def _logits(self, picture: np.ndarray) -> np.ndarray:
        with guarded(UnknownFormatError, f"the face parser '{self.name}' failed on a crop", advice=OTHER_PARSER):
            logits = np.asarray(self.session.run(None, {self.session.get_inputs()[0].name: picture[None]})[0])
        if logits.ndim != 4 or logits.shape[:2] != (1, NUM_CLASSES) or not np.isfinite(logits).all():
            raise UnknownFormatError(
                f"the face parser '{self.name}' returned numbers of the shape {logits.shape} that are not finite "
                f"scores of {NUM_CLASSES} classes; {OTHER_PARSER}"
            )
        return logits


def load_face_parser(path: Path, provider: Provider = Provider.AUTO) -> FaceParsingNetwork:
    """Opens a face parsing network.

    Args:
        path: an ONNX file that maps (1, 3, height, width) to (1, 19, height, width).
        provider: the device to run on.
    Returns:
        The network; its `notes` say what differs from the request.
    Raises:
        MissingPackageError: onnxruntime is missing or broken.
        CheckpointReadError: the file is damaged.
        UnknownFormatError: it is a different network.
    """
    network = FaceParsingNetwork(path, provider)
    _check_is_parser(network.name, network.session)
    return network


def _check_is_parser(name: str, session: InferenceSession) -> None:
    takes, gives = (
        [list(entry.shape or ()) for entry in session.get_inputs()],
        list(session.get_outputs()[0].shape or ()),
    )
    is_parser = len(takes) == 1 and len(takes[0]) == 4 and takes[0][1] == 3 and len(gives) == 4
    if not is_parser or gives[1] != NUM_CLASSES:
        raise UnknownFormatError(
            f"'{name}' maps {takes} to {gives}; a face parser maps (1, 3, height, width) to "
            f"(1, {NUM_CLASSES}, height, width): {OTHER_PARSER}"
        )
    if isinstance(takes[0][0], int) and takes[0][0] != 1:
        raise UnknownFormatError(
            f"'{name}' takes batches of exactly {takes[0][0]} pictures, but faces are parsed one at a time; export it "
            "with a batch of one, or with a dynamic batch"
        )
    if (kind := session.get_inputs()[0].type) != "tensor(float)":
        raise InvalidInputError(f"'{name}' takes {kind} inputs; export it with float32 inputs")
