"""Every error that the pack raises on purpose.

Each message says what is wrong, with the figures or names, and what to do about it. ComfyUI shows the class name and
the message on the node, so both are written for artists.
"""

PACKAGE = "fpga_portrait"
"""ComfyUI shows the module of an error's class, and a node pack's modules are called by the path of its folder."""


class FPGAError(Exception):
    """Base of all errors that the pack raises on purpose."""

    __module__ = PACKAGE

    def __init_subclass__(cls) -> None:
        cls.__module__ = PACKAGE


class InvalidInputError(FPGAError):
    """A value on a socket or widget is not one that the node can use."""


class ShapeMismatchError(InvalidInputError):
    """Two tensors, pictures or regions that must agree in size do not."""


class CheckpointError(FPGAError):
    """A weights file cannot be used."""


class CheckpointReadError(CheckpointError):
    """The file is truncated, empty, or not a weights file at all."""


class UnknownFormatError(CheckpointError):
    """The file is readable, but the pack does not know the layout of its tensors."""


class CheckpointKeyError(CheckpointError):
    """Tensors are missing from the file, or it holds tensors that do not belong."""


class CheckpointShapeError(CheckpointError):
    """A tensor in the file does not have the shape that the model needs."""


class BaseModelError(CheckpointError):
    """The file was made for a different base architecture than that of the connected model."""


class PatchConflictError(FPGAError):
    """The model already carries a patch that excludes the requested one."""


class UnsupportedModeError(FPGAError):
    """The chosen mode cannot express the chosen settings, or the model family is not supported."""


class MissingModelError(FPGAError):
    """A model file or folder that the node needs is missing."""


class MissingPackageError(FPGAError):
    """A Python package that the node needs is not installed, or its installation does not work."""


class DownloadError(FPGAError):
    """A requested file could not be downloaded, or is not the expected one."""


class FaceNotFoundError(FPGAError):
    """A picture that needs a face does not show a usable one."""


class DetectionError(FPGAError):
    """A face analysis fails, or delivers what cannot be a face."""


class TrainingDataError(FPGAError):
    """A sample of a training set is incomplete, unreadable, or does not fit the others."""


class TrainingCheckpointError(FPGAError):
    """The state of a training cannot be written, or a saved one cannot be read."""


class ResumeMismatchError(TrainingCheckpointError):
    """The saved state belongs to a training with other settings, data or parameters."""


class TrainingDivergedError(FPGAError):
    """The loss or its gradient is no longer a number."""


class ServerError(FPGAError):
    """No ComfyUI server answers."""
