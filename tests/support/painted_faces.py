"""Pictures with coloured rectangles for faces, and a face analysis that tells people apart by their colour."""

import numpy as np
import torch
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from PIL import Image

ANNA, BEA, STRANGER = (255, 0, 0), (0, 0, 255), (0, 255, 0)
GROUND = (100, 100, 100)


def painted(*faces: tuple, width: int = 96, height: int = 64) -> np.ndarray:
    """Returns (height, width, 3) uint8 with faces, each (colour, x, y, width, height), on grey."""
    picture = np.full((height, width, 3), GROUND, np.uint8)
    for color, x, y, w, h in faces:
        picture[y : y + h, x : x + w] = color
    return picture


def as_image(*pictures: np.ndarray) -> torch.Tensor:
    """Returns a batch as ComfyUI's IMAGE."""
    return torch.from_numpy(np.stack(pictures)).float() / 255


def save(path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


class ColorAnalysis:
    """Finds each colour that is not grey as one face; the embedding is the colour."""

    description = "colours"
    recogniser = BUFFALO_L

    def find_faces(self, pictures):
        return [tuple(self._faces(picture)) for picture in pictures]

    def _faces(self, picture):
        for color in np.unique(picture.reshape(-1, 3), axis=0):
            if tuple(color) != GROUND:
                rows, columns = np.nonzero((picture == color).all(axis=-1))
                box = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                points = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.3, 0.8), (0.7, 0.8)])
                embedding = np.zeros(512, np.float32)
                embedding[:3] = color
                points = (points * (box.width, box.height) + (box.x0, box.y0)).astype(np.float32)
                yield Face(box, landmarks=points, embeddings={BUFFALO_L: embedding})
