"""Downloads published identity adapters from the Hugging Face Hub: only on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..boundaries import guarded
from ..errors import DownloadError


@dataclass(frozen=True, kw_only=True)
class PublishedAdapter:
    """A file on the Hugging Face Hub.

    Attributes:
        repository: such as h94/IP-Adapter-FaceID.
        folder: where the file lies in it; "" is at the top.
        licence: what it allows, in a few words.
    """

    repository: str
    folder: str = ""
    licence: str


_FACEID = PublishedAdapter(repository="h94/IP-Adapter-FaceID", licence="research only")
PUBLISHED_ADAPTERS: Mapping[str, PublishedAdapter] = {
    "ip-adapter-faceid_sd15.bin": _FACEID,
    "ip-adapter-faceid-plusv2_sd15.bin": _FACEID,
    "ip-adapter-faceid_sdxl.bin": _FACEID,
    "ip-adapter-faceid-plusv2_sdxl.bin": _FACEID,
    "ip-adapter-plus-face_sd15.safetensors": PublishedAdapter(
        repository="h94/IP-Adapter", folder="models", licence="Apache-2.0"
    ),
    "ip-adapter-plus-face_sdxl_vit-h.safetensors": PublishedAdapter(
        repository="h94/IP-Adapter", folder="sdxl_models", licence="Apache-2.0"
    ),
}
"""Adapters that can be downloaded, by the names of their files."""


def download_adapter(name: str, folder: Path) -> None:
    """Downloads a published adapter. The files are public, so no token is sent.

    Args:
        name: of the file, one of `PUBLISHED_ADAPTERS`.
        folder: gets the file; created if it does not exist.
    Raises:
        DownloadError: the name is not known, or the file cannot be downloaded or written.
    """
    published = PUBLISHED_ADAPTERS.get(name)
    if published is None:
        raise DownloadError(
            f"'{name}' cannot be downloaded; put it into '{folder}', or choose one of {', '.join(PUBLISHED_ADAPTERS)}"
        )
    from huggingface_hub import hf_hub_download

    path = f"{published.folder}/{name}" if published.folder else name
    advice = f"check the connection and the disk, and run again to resume, or put the file into '{folder}' yourself"
    with guarded(DownloadError, f"'{name}' cannot be downloaded from {published.repository}", advice=advice):
        fetched = Path(hf_hub_download(published.repository, path, local_dir=folder, token=False))
        fetched.replace(folder / name)
