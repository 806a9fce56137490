"""Finds the face pixels of a crop with BiSeNet face parsing (Yu et al. 2018), from an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import CheckpointReadError, InvalidInputError, UnknownFormatError
from .onnx_runtimes import Provider, import_onnxruntime, provider_notes, reading_errors, wanted_providers

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NUM_CLASSES = 19
FACE_CLASSES = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13)
"""Skin, brows, eyes, glasses, nose, mouth and lips of the CelebAMask-HQ classes; no ears, hair, neck, hats or cloth."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
DEFAULT_SIDE_PX = 512


class FaceParsingNetwork:
    """A BiSeNet for the 19 classes of CelebAMask-HQ. Calling it with crops returns a mask of the face in each."""

    def __init__(self, name: str, session: InferenceSession, notes: tuple[str, ...]) -> None:
        self.name = name
        self.notes = notes
        self._session = session
        self._input = session.get_inputs()[0]

    @property
    def description(self) -> str:
        """Model and execution provider, as shown to the user."""
        return f"{self.name} on {self._session.get_providers()[0]}"

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
        height, width = (side if isinstance(side, int) else DEFAULT_SIDE_PX for side in self._input.shape[2:])
        resized = F.interpolate(crops.movedim(-1, 1).float(), (height, width), mode="bilinear", antialias=True)
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        inputs = ((resized - mean) / deviation).numpy().astype(np.float32)
        # One at a time, because most files have a fixed batch of one. The other outputs are auxiliary heads from
        # training.
        logits = [self._session.run(None, {self._input.name: picture[None]})[0] for picture in inputs]
        classes = torch.as_tensor(np.concatenate(logits).argmax(axis=1))
        face = torch.isin(classes, torch.tensor(FACE_CLASSES)).float()
        return F.interpolate(face[:, None], crops.shape[1:3], mode="bilinear", antialias=True)[:, 0].round()


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
    onnxruntime = import_onnxruntime()
    available = onnxruntime.get_available_providers()
    wanted = wanted_providers(provider, available)
    try:
        usable = [name for name in wanted if name in available]
        session = onnxruntime.InferenceSession(str(path), providers=usable)
    except reading_errors() as error:
        raise CheckpointReadError(f"'{path.name}' cannot be read as ONNX: {error}; download it again") from error
    _check_is_parser(path.name, session)
    used = session.get_providers()[0]
    notes = provider_notes(provider, wanted=wanted[0], used=used, available=available)
    return FaceParsingNetwork(path.name, session, notes)


def _check_is_parser(name: str, session: InferenceSession) -> None:
    takes, gives = session.get_inputs(), session.get_outputs()[0].shape
    if (
        len(takes) != 1
        or len(takes[0].shape) != 4
        or takes[0].shape[1] != 3
        or len(gives) != 4
        or gives[1] != NUM_CLASSES
    ):
        raise UnknownFormatError(
            f"'{name}' maps {[entry.shape for entry in takes]} to {gives}; a face parser maps (1, 3, height, width) to "
            f"(1, {NUM_CLASSES}, height, width), such as BiSeNet trained on CelebAMask-HQ: choose another file"
        )
    if takes[0].type != "tensor(float)":
        raise InvalidInputError(f"'{name}' takes {takes[0].type} inputs; export it with float32 inputs")
