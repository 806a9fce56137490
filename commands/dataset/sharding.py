"""Writes shards: cuts each picture, draws its skeleton and landmarks, and masks its face."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...fpga_core.dataset.framing import cut, face_crop, moved
from ...fpga_core.dataset.masks import hull_mask
from ...fpga_core.errors import FPGAError, TrainingDataError
from ...fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from ...fpga_core.faces.face import Body, Face, PictureFaces
from ...fpga_core.faces.parsing import FaceParsingNetwork, load_face_parser
from ...fpga_core.geometry import Box
from ...fpga_core.shapes import Extent
from ...fpga_core.training.data.pictures import read_picture
from ...fpga_core.training.data.samples import TrainingSample
from ...fpga_core.training.data.writing import write_shard
from .parts import read_part
from .places import read_place
from .tasks import TEXT, Row, Rows

FACE_PARSER = "face_parser"
GIVES = {"faults": TEXT}
PARSED_MARGIN = 0.4
"""What a face parser sees beside the face, as a fraction of it on each side."""


@dataclass(frozen=True)
class Sharding:
    """What makes samples.

    Attributes:
        target: the size of the set's pictures.
        parser: masks faces; None: the hull of the landmarks does.
    """

    target: Extent
    parser: FaceParsingNetwork | None

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        return [{"faults": json.dumps(self.write(Path(row["plan"]), Path(row["shard"])))} for row in rows]

    def write(self, planned: Path, shard: Path) -> dict[str, str]:
        """Writes a shard of the pictures of a table. Returns number -> fault for each that cannot be used."""
        faults: dict[str, str] = {}

        def samples() -> Iterator[tuple[TrainingSample, dict[str, Any]]]:
            for row in read_part(planned):
                try:
                    yield self.sample(row), origin_of(row)
                except FPGAError as error:
                    faults[str(row["number"])] = str(error)

        write_shard(shard, samples())
        return faults

    def sample(self, row: Row) -> TrainingSample:
        """Returns the sample of a picture.

        Raises:
            TrainingDataError: the picture was changed, or the face cannot be masked.
        """
        picture = read_picture(read_place(row["place"]), is_mask=False)
        window = Box(*row["window"])
        image = cut(picture, window, self.target)
        landmarks = moved(np.reshape(row["landmarks"], (68, 2)), window, self.target)
        body = Body(moved(np.reshape(row["body"], (18, 3)), window, self.target))
        face = Box(*moved(np.reshape(row["face_box"], (2, 2)), window, self.target).ravel())
        shown = PictureFaces(self.target, (Face(face, landmarks=landmarks),), (body,))
        sample = TrainingSample(
            key=row["key"],
            caption=row["caption"] or "",
            image=image,
            skeleton=drawn(shown, DrawnParts.BODY),
            landmarks=drawn(shown, DrawnParts.FACE),
            mask=self._given_mask(row, window) if "mask_at" in row["given"] else self._mask(image, face, landmarks),
            face=face_crop(picture, Box(*row["face_box"])),
            embedding=None if row["embedding"] is None else np.array(row["embedding"], np.float32),
        )
        sample.check(8)
        return sample

    def _given_mask(self, row: Row, window: Box) -> np.ndarray:
        mask = read_picture(read_place(json.loads(row["given"])["mask_at"]), is_mask=True)
        if mask.shape != (row["height"], row["width"]):
            raise TrainingDataError(
                f"its mask is {mask.shape[1]}x{mask.shape[0]}, but it must be as large as the picture"
            )
        return np.where(cut(mask, window, self.target) > 127, 255, 0).astype(np.uint8)

    def _mask(self, image: np.ndarray, face: Box, landmarks: np.ndarray) -> np.ndarray:
        if self.parser is None:
            return hull_mask(landmarks, self.target)
        around = face.grown(PARSED_MARGIN).clipped(self.target)
        x0, y0, x1, y1 = (round(edge) for edge in (around.x0, around.y0, around.x1, around.y1))
        crop = torch.as_tensor(image[y0:y1, x0:x1].copy())[None].float() / 255
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[y0:y1, x0:x1] = self.parser(crop)[0].numpy().astype(np.uint8) * 255
        return mask


def open_task(settings: dict[str, Any]) -> Rows:
    parser = settings.get(FACE_PARSER)
    return Sharding(Extent(*settings["size"]), None if parser is None else load_face_parser(Path(parser)))


def drawn(shown: PictureFaces, parts: DrawnParts) -> np.ndarray:
    picture = draw_conditions([shown], parts, FaceStyle.OPENPOSE)[0].numpy()
    return (picture * 255).round().astype(np.uint8)


def origin_of(row: Row) -> dict[str, Any]:
    """Returns what travels with a sample."""
    known = {"file": row["name"], "sha256": row["sha256"], "source": row["source"], "licence": row["licence"]}
    return {name: value for name, value in known.items() if value}
