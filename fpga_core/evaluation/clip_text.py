"""CLIP's text side, for CLIP-T, from a folder in the layout of `transformers`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..boundaries import guarded
from ..errors import CheckpointReadError, MissingModelError
from ..packages import importing

CONFIG = "config.json"


class ClipText:
    """A text encoder with its projection and its tokenizer.

    ComfyUI's text encoders are made for conditioning, and most of their files have no projection. `transformers` is
    among ComfyUI's requirements. Nothing is downloaded.
    """

    def __init__(self, folder: Path) -> None:
        """Loads the model.

        Args:
            folder: a whole CLIP as published, or a text model with projection, with the tokenizer's files.
        Raises:
            MissingModelError: there is no such folder.
            CheckpointReadError: the files in it cannot be used.
        """
        if not (folder / CONFIG).is_file():
            raise MissingModelError(
                f"name a folder with a CLIP of transformers for the prompts: '{folder}' has no {CONFIG}"
            )
        with importing("transformers"):
            transformers: Any = importlib.import_module("transformers")
        advice = "download all files of the CLIP whose vision side scores the pictures"
        with guarded(CheckpointReadError, f"'{folder}' is not a CLIP of transformers", advice=advice):
            model, told = transformers.CLIPTextModelWithProjection.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if missing := sorted(told["missing_keys"]):
            raise CheckpointReadError(f"'{folder}' lacks {missing[0]} and {len(missing) - 1} more tensors; {advice}")
        self._model: Any = model.eval()

    def embed(self, prompts: Sequence[str]) -> np.ndarray:
        """Returns the projected embedding of each prompt, (prompts, dim) float32. Long prompts are cut off."""
        tokens = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return self._model(**tokens).text_embeds.numpy()
