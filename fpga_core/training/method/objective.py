"""The interface of everything that the training engine trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.batch import TrainingBatch


class TrainingModel(nn.Module, ABC):
    """A network that returns the loss when it is called. Its float32 parameters with `requires_grad` are trained.

    The frozen base is not a submodule: it appears in no state dict, no optimiser and no exchange of gradients, and
    follows the batch to its device. Every trained parameter takes part in every iteration's loss.

    Attributes:
        new_layers: prefixes of the names of parameters that start from random weights; others start as copies.
    """

    new_layers: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: TrainingBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Computes the loss of one iteration.

        Args:
            batch: on the device of the parameters.
            iteration: counted from 0 through all stages of training; it decides what the condition image shows.
            generator: source of every random draw, on any device; the same state gives the same loss.
        Returns:
            "loss", a scalar to minimise, and its named parts, detached, for the log.
        Raises:
            InvalidInputError: the batch does not fit the model, or is too small for this iteration.
        """

    def validation_loss(self, batch: TrainingBatch, iteration: int, generator: torch.Generator) -> Tensor:
        """Computes the loss on samples that are not trained on, a scalar that can be compared between iterations.

        Args:
            batch, iteration, generator: as in `forward`.
        Raises:
            InvalidInputError: as in `forward`.
        """
        return self(batch, iteration, generator)["loss"]

    @abstractmethod
    def export(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes the current parameters as the files that the pack's nodes load.

        Args:
            folder: exists; files with the same names are replaced.
            trained_on: the data that it was trained on, as free text.
        Returns:
            The files.
        Raises:
            CheckpointError: a file cannot be written.
        """
