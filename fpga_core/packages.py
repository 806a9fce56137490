"""Packages that only some nodes need. They are imported where they are used, so that the others load without them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from .errors import MissingPackageError

OPENCV = "opencv-python"


@contextmanager
def importing(package: str, *, install: str | None = None) -> Generator[None, None, None]:
    """Within the block, an import that fails says which package is missing and how to install it.

    Args:
        package: the package that the block imports, by its name on PyPI.
        install: what to hand to `pip install`; None: the package's name.
    Raises:
        MissingPackageError: an import of the block fails.
    """
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"{package} cannot be imported ({error}); run this command, then restart ComfyUI: "
            f"{pip_command(install or package)}"
        ) from error


def pip_command(arguments: str) -> str:
    """The command line that installs something into the Python that runs now."""
    return f'"{sys.executable}" -m pip install {arguments}'
