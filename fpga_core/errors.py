"""Every error that the pack raises on purpose.

Each message says what is wrong, with the figures or names involved, and what to do about it. ComfyUI shows the class
name and the message on the node, so both are written for the artist who reads them.
"""


class FPGAError(Exception):
    """Base of all errors that the pack raises on purpose."""


class InvalidInputError(FPGAError):
    """A value on a socket or widget is outside what the node can work with."""


class ShapeMismatchError(InvalidInputError):
    """Two tensors, pictures or regions that must agree in size do not."""


class CheckpointError(FPGAError):
    """A weights file cannot be used."""


class CheckpointReadError(CheckpointError):
    """The file is truncated, empty, or not a weights file at all."""


class UnknownFormatError(CheckpointError):
    """The file is readable, but its tensors are of no layout that the pack knows."""


class CheckpointKeyError(CheckpointError):
    """Tensors are missing from the file, or it holds tensors that do not belong."""


class CheckpointShapeError(CheckpointError):
    """A tensor of the file has another shape than its place in the model."""


class BaseModelError(CheckpointError):
    """The file was made for another base architecture than the connected model."""


class PatchConflictError(FPGAError):
    """The model already carries a patch that excludes the one asked for."""


class UnsupportedModeError(FPGAError):
    """The chosen mode cannot express the chosen settings, or the model family is not supported."""


class MissingModelError(FPGAError):
    """A model file or folder that the node needs is not there."""


class MissingPackageError(FPGAError):
    """A Python package that the node needs is not installed, or does not work as it is installed."""


class DownloadError(FPGAError):
    """A file that was asked for could not be downloaded, or is not the one that was expected."""


class FaceNotFoundError(FPGAError):
    """A picture in which a face is needed shows none that is usable."""


class TrainingDataError(FPGAError):
    """A sample of a training set is incomplete, unreadable, or does not fit the others."""


class TrainingCheckpointError(FPGAError):
    """The state of a training cannot be written, or a saved one cannot be read."""


class ResumeMismatchError(TrainingCheckpointError):
    """The saved state belongs to a training with other settings, data or parameters."""


class TrainingDivergedError(FPGAError):
    """The loss or its gradient is no longer a number."""
