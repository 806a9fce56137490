"""Packages that only some nodes need. They are imported where they are used, so that other nodes load without them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from .errors import MissingPackageError

OPENCV = "opencv-python-headless"
COMPLETED = (OPENCV, "insightface", "onnxruntime")
"""What the pack's install.py installs."""


@contextmanager
def importing(package: str, *, install: str | None = None) -> Generator[None, None, None]:
    """Turns a failed import in the block into an error that names the missing package and says how to install it.

    Args:
        package: the package that the block imports, by its name on PyPI.
        install: the argument of `pip install`; None is the package's name.
    Raises:
        MissingPackageError: an import of the block fails.
    """
    try:
        yield
    except ImportError as error:
        file = "install.py of the pack, or " if package in COMPLETED else ""
        raise MissingPackageError(
            f"{package} cannot be imported ({error}); run {file}this command, then restart ComfyUI: "
            f"{pip_command(install or package)}"
        ) from error


def pip_command(arguments: str) -> str:
    """Returns the command line that installs something into the running Python."""
    return f'"{sys.executable}" -m pip install {arguments}'
