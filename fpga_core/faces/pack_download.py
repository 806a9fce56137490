"""Downloads the files of a face analysis pack: only on request, resumable, and verified."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DownloadError
from .model_packs import ModelPack, PackFile

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Called with the number of bytes so far and in total. It can raise to stop; the next download resumes."""


def missing_files(pack: ModelPack, folder: Path) -> list[PackFile]:
    """Returns the pack's files that are missing from a folder."""
    return [file for file in pack.files if not (folder / file.name).is_file()]


def download_pack(pack: ModelPack, folder: Path, progress: Progress) -> None:
    """Downloads what a folder lacks of a pack, and resumes an earlier download that stopped.

    Args:
        pack: what to download.
        folder: gets the files; created if it does not exist.
        progress: called after each part that arrives.
    Raises:
        DownloadError: a file cannot be downloaded or written, or is not the published one.
    """
    missing = missing_files(pack, folder)
    total = sum(file.num_bytes for file in missing)
    done = 0
    for file in missing:
        _download_file(pack, file, folder, lambda num_bytes, before=done: progress(before + num_bytes, total))
        done += file.num_bytes


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def damaged_files(pack: ModelPack, folder: Path) -> Sequence[str]:
    """Returns the names of the pack's files that exist but are not the published ones."""
    present = [file for file in pack.files if (folder / file.name).is_file()]
    return [file.name for file in present if file_sha256(folder / file.name) != file.sha256]


class _ReportingFile(io.BufferedWriter):
    """A file that is written further, and reports its progress."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = report

    def write(self, buffer: Buffer, /) -> int:
        written = super().write(buffer)
        self._report(self.tell())
        return written


def _download_file(pack: ModelPack, file: PackFile, folder: Path, report: Callable[[int], None]) -> None:
    # hf_hub_download deletes the partial file when it is interrupted. The client's lower level resumes at the end of a
    # file.
    from huggingface_hub import errors, hf_hub_url
    from huggingface_hub.file_download import http_get  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportUnknownVariableType]

    target, partial = folder / file.name, folder / f"{file.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if partial.exists() and partial.stat().st_size > file.num_bytes:
            partial.unlink()
        url = hf_hub_url(pack.repository, file.name, subfolder=pack.folder, revision=pack.revision)
        with _ReportingFile(partial, report) as stream:
            start = stream.tell()
            report(start)
            headers = build_hf_headers()
            http_get(url, stream, resume_size=start, headers=headers, expected_size=file.num_bytes)
    except (OSError, errors.HTTPError) as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DownloadError(
            f"'{file.name}' of {pack.name} cannot be downloaded from {pack.repository}: {reason}; check the connection "
            f"and the disk, and run again to resume, or put the file into '{folder}' yourself"
        ) from error
    if (found := file_sha256(partial)) != file.sha256:
        partial.unlink()
        raise DownloadError(
            f"'{file.name}' of {pack.name} arrived damaged, or is not the published file (its SHA-256 begins with "
            f"{found[:12]}, not {file.sha256[:12]}); it was deleted, so run again"
        )
    os.replace(partial, target)
