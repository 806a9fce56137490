"""Writes captions with any image-to-text model that transformers loads from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...fpga_core.boundaries import guarded
from ...fpga_core.dataset.framing import cut
from ...fpga_core.errors import CheckpointReadError, TrainingDataError
from ...fpga_core.geometry import Box
from ...fpga_core.packages import importing
from ...fpga_core.shapes import Extent
from ...fpga_core.training.data.pictures import read_picture
from .places import read_place
from .tasks import TEXT, Row, Rows

CAPTIONER = "captioner"
GIVES = {"written": TEXT}


@dataclass(frozen=True)
class Captioning:
    """A captioner.

    Attributes:
        model, processor: of transformers.
        target: the size of the set's pictures, which are what is described.
        prompt: what the model is asked, or how the caption begins; many models need none.
        max_tokens: the longest caption.
    """

    model: Any
    processor: Any
    target: Extent
    prompt: str
    max_tokens: int

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        return [{"written": self.describe(row["place"], row["window"])} for row in rows]

    def describe(self, place: str, window: Sequence[float]) -> str:
        """Returns the caption of a window of a picture. Equal pictures have equal captions: nothing is drawn."""
        import torch

        picture = cut(read_picture(read_place(place), is_mask=False), Box(*window), self.target)
        asked = {"text": self.prompt} if self.prompt else {}
        with guarded(TrainingDataError, "the captioner failed on a picture", advice="use another model or --prompt"):
            inputs = self.processor(images=picture, return_tensors="pt", **asked).to(self.model.device)
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_tokens)
            text = self.processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return " ".join(text.removeprefix(self.prompt).split())


def open_task(settings: dict[str, Any]) -> Rows:
    with importing("transformers"):
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
    folder = Path(settings[CAPTIONER])
    with guarded(
        CheckpointReadError, f"'{folder}' cannot be loaded as a captioner", advice="choose an image-to-text model"
    ):
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return Captioning(model, processor, Extent(*settings["size"]), settings["prompt"], settings["max_tokens"])
