"""Downloads published identity adapters from the Hugging Face Hub: only on request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..boundaries import guarded
from ..errors import DownloadError

FACEID, IP_ADAPTER = "h94/IP-Adapter-FaceID", "h94/IP-Adapter"
"""Repositories on the Hugging Face Hub: the first is for research only, the second is Apache-2.0."""

PUBLISHED_ADAPTERS: Mapping[str, tuple[str, str]] = {
    "ip-adapter-faceid_sd15.bin": (FACEID, ""),
    "ip-adapter-faceid-plusv2_sd15.bin": (FACEID, ""),
    "ip-adapter-faceid_sdxl.bin": (FACEID, ""),
    "ip-adapter-faceid-plusv2_sdxl.bin": (FACEID, ""),
    "ip-adapter-plus-face_sd15.safetensors": (IP_ADAPTER, "models/"),
    "ip-adapter-plus-face_sdxl_vit-h.safetensors": (IP_ADAPTER, "sdxl_models/"),
}
"""Adapters that can be downloaded: name of the file -> its repository, and the folder in it."""


def download_adapter(name: str, folder: Path) -> None:
    """Downloads a published adapter. The files are public, so no token is sent.

    Args:
        name: of the file, one of `PUBLISHED_ADAPTERS`.
        folder: gets the file; created if it does not exist.
    Raises:
        DownloadError: the name is not known, or the file cannot be downloaded or written.
    """
    if name not in PUBLISHED_ADAPTERS:
        raise DownloadError(
            f"'{name}' cannot be downloaded; put it into '{folder}', or choose one of {', '.join(PUBLISHED_ADAPTERS)}"
        )
    from huggingface_hub import hf_hub_download

    repository, place = PUBLISHED_ADAPTERS[name]
    advice = f"check the connection and the disk, and run again to resume, or put the file into '{folder}' yourself"
    with guarded(DownloadError, f"'{name}' cannot be downloaded from {repository}", advice=advice):
        fetched = Path(hf_hub_download(repository, place + name, local_dir=folder, token=False))
        fetched.replace(folder / name)
