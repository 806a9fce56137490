"""Boundaries with libraries and the disk: what they raise becomes an error of the pack, and no file is half written."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from .errors import FPGAError

LONGEST_SHOWN = 200
"""Characters of a library's message, or of text from a file, that a message repeats."""


@contextmanager
def guarded(kind: type[FPGAError], failure: str, *, advice: str) -> Generator[None, None, None]:
    """Turns every error of the block into a named one. The block calls one library, and nothing else.

    Errors of the pack pass, and so does a lack of GPU memory, to which ComfyUI reacts.

    Args:
        kind: the class of the error.
        failure: what failed, with the name of the file.
        advice: what to do.
    Raises:
        FPGAError: of `kind`, as `failure; advice (reason)`: what to do comes before the library's words.
    """
    try:
        yield
    except (FPGAError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise kind(f"{failure}; {advice} ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """Returns what an error says, in one short line; the name of its class if it says nothing."""
    return shortened(str(error).strip().partition("\n")[0]) or type(error).__name__


def shortened(text: str, longest: int = LONGEST_SHOWN) -> str:
    """Returns a text from elsewhere as a message can repeat it: in one line, and cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}... ({len(text):,} characters)"


@contextmanager
def written_whole(path: Path, kind: type[FPGAError]) -> Generator[Path, None, None]:
    """Gives the block a path beside a file, and moves there what it wrote: `path` holds the old or the whole new file.

    Args:
        path: the file; its folder exists. It gets the permissions that any new file gets.
        kind: the class of the error.
    Raises:
        FPGAError: of `kind`; the file cannot be written. One that was there before is unchanged.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    advice = (
        "free some disk space, check that the folder exists, and close other programs that use the file, then run again"
    )
    try:
        with guarded(kind, f"'{path}' cannot be written", advice=advice):
            partial.touch(exist_ok=False)
            permissions = stat.S_IMODE(partial.stat().st_mode)  # as umask says; safetensors gives its own
            yield partial
            partial.chmod(permissions)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
