"""Downloads the files of a face analysis pack: only on request, resumable, and verified."""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO

from ..boundaries import reason_of
from ..errors import DownloadError
from ..packages import importing
from .model_packs import ModelPack, PackFile

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30
MAX_ATTEMPTS = 5
"""How often a connection that ends early is resumed, as long as more of the file arrives each time."""

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


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted connection to one that is not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise DownloadError(
                f"put the file into the folder yourself: '{req.host}' sends the download on over a connection that is "
                "not encrypted, which is refused"
            )
        return super().redirect_request(req, fp, code, msg=msg, headers=headers, newurl=newurl)


def _download_file(pack: ModelPack, file: PackFile, folder: Path, report: Callable[[int], None]) -> None:
    from huggingface_hub import hf_hub_url

    target, partial = folder / file.name, folder / f"{file.name}.part"
    url = hf_hub_url(pack.repository, file.name, subfolder=pack.folder, revision=pack.revision)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as stream:
            if stream.tell() > file.num_bytes:
                stream.truncate(stream.seek(0))
            for _ in range(MAX_ATTEMPTS):
                before = stream.tell()
                report(before)
                if before < file.num_bytes:
                    _fetch_rest(url, stream, file.num_bytes, report)
                if stream.tell() >= file.num_bytes or stream.tell() <= before:
                    break
            if stream.tell() < file.num_bytes:
                raise OSError(f"the connection ended after {stream.tell():,} of {file.num_bytes:,} bytes")
    except (OSError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DownloadError(
            f"'{file.name}' of {pack.name} cannot be downloaded from {pack.repository}; check the connection and the "
            f"disk, and run again to resume, or put the file into '{folder}' yourself ({reason_of(error)})"
        ) from error
    if (found := file_sha256(partial)) != file.sha256:
        partial.unlink()
        raise DownloadError(
            f"'{file.name}' of {pack.name} arrived damaged, or is not the published file (its SHA-256 begins with "
            f"{found[:12]}, not {file.sha256[:12]}); it was deleted, so run again"
        )
    os.replace(partial, target)


def _fetch_rest(url: str, stream: BinaryIO, num_bytes: int, report: Callable[[int], None]) -> None:
    """Appends what is missing of a file, or writes it anew if the server does not confirm where it continues.

    The files are public, so no token is sent, whatever the user is logged in to.
    """
    with importing("certifi"):
        import certifi
    start = stream.tell()
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(certifi.where())
    opener = urllib.request.build_opener(_SecureRedirects, urllib.request.HTTPSHandler(context=trusted))
    headers = {"User-Agent": "fpga-portrait", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the hub's address, or the user's mirror
    with opener.open(request, timeout=TIMEOUT_S) as reply:
        if start and not _continues(reply, start, num_bytes):
            stream.truncate(stream.seek(0))
            if reply.status != HTTPStatus.OK:  # a part of the file, but another one
                return _fetch_rest(url, stream, num_bytes, report)
        while stream.tell() <= num_bytes and (chunk := reply.read(CHUNK_BYTES)):
            stream.write(chunk)
            report(stream.tell())
    return None


def _continues(reply: HTTPResponse, start: int, num_bytes: int) -> bool:
    """Returns whether the server confirms that its answer is the rest of the file, from the byte that was asked for."""
    confirmed = reply.headers.get("Content-Range", "").replace(" ", "").lower()
    return reply.status == HTTPStatus.PARTIAL_CONTENT and confirmed == f"bytes{start}-{num_bytes - 1}/{num_bytes}"
