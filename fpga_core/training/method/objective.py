"""What the training engine asks of anything that it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.batch import TrainingBatch


class TrainingModel(nn.Module, ABC):
    """A network whose parameters with `requires_grad` are trained, float32, and whose call gives the loss.

    The frozen base is not a submodule: it appears in no state dict, no optimiser and no exchange of gradients, and
    follows the batch to its device. Every trained parameter takes part in every iteration's loss.

    Attributes:
        new_layers: prefixes of the names of parameters that start from random weights; others start as copies.
    """

    new_layers: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: TrainingBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of one iteration.

        Args:
            batch: on any device; the parameters are on the same.
            iteration: counted from 0 through all stages of training; it decides what the condition image shows.
            generator: source of every random draw, on any device: the same state gives the same loss.
        Returns:
            "loss", a scalar to be minimised, and its named parts, detached, for the log.
        Raises:
            InvalidInputError: the batch does not fit the model, or is too small for what this iteration does.
        """

    @abstractmethod
    def export(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes the parameters, as they are now, as the files that the pack's nodes load.

        Args:
            folder: exists; files with the same names are replaced.
            trained_on: the data that it was trained on, for people to read.
        Returns:
            The files.
        Raises:
            CheckpointError: a file cannot be written.
        """
