"""The face analyser that runs insightface model packs: any folder of ONNX files whose shapes insightface recognises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..boundaries import guarded, reason_of
from ..errors import CheckpointReadError, MissingModelError
from ..geometry import Box
from ..packages import OPENCV, importing
from ..progress import say
from .face import Face
from .model_packs import KNOWN_PACKS, known_pack
from .onnx_runtimes import CPU, Provider, import_onnxruntime, open_onnx, provider_notes, wanted_providers
from .pack_download import Progress, damaged_files, download_pack, file_sha256
from .tiles import detect_in_tiles

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis

MIN_SIDE_PX = 16
MAX_ASPECT = 64
"""Detectors may shrink the longer side to 128 pixels. Of a picture beyond this aspect ratio, nothing is left."""

INSIGHTFACE = '"insightface>=2.0"'
DENSE_LANDMARKS = ("landmark_3d_68", "landmark_2d_106", "landmark_2d_68")
"""The preferred one first. Only one of a pack is used, and the others are not run."""
TASKS = ("detection", "recognition", *DENSE_LANDMARKS)

WHAT_BELONGS = (
    "its ONNX files are not those of an insightface pack: keep only a detector (SCRFD), a recogniser (ArcFace) and "
    "landmarks in the folder, or use buffalo_l"
)

logger = logging.getLogger(__name__)


class InsightFacePack:
    """insightface's detector, recogniser and landmarks from one folder, as a `FaceAnalyzer`.

    Safe to share between threads: pictures are analysed one at a time.
    """

    def __init__(self, name: str, analysis: FaceAnalysis, *, recogniser: str | None, notes: tuple[str, ...]) -> None:
        self._name = name
        self._analysis = analysis
        self._recogniser = recogniser
        self._lock = threading.Lock()
        self.notes = notes
        """Notes for the user, for example why a slower device runs than the chosen one, and how to fix it."""

    @property
    def description(self) -> str:
        return f"{self._name} on {', '.join(sorted(set(self.providers.values())))}"

    @property
    def recogniser(self) -> str | None:
        return self._recogniser

    @property
    def providers(self) -> Mapping[str, str]:
        """The execution provider that the session of each task really runs on."""
        return MappingProxyType(
            {task: model.session.get_providers()[0] for task, model in self._analysis.models.items()}
        )

    @property
    def info(self) -> str:
        """A description of what was loaded, one fact per line."""
        models = self._analysis.models
        lines = [self.description]
        if self._recogniser is None:
            lines.append("no recogniser: faces are found, but nobody is recognised")
        else:
            file = Path(models["recognition"].model_file).name
            lines.append(f"recogniser: {file}, SHA-256 {self._recogniser[:12]}...")
        dense = next((task for task in DENSE_LANDMARKS if task in models), None)
        lines.append(f"landmarks: {dense.rpartition('_')[2] if dense else 5}")
        pack = known_pack(self._name)
        lines.append(f"licence: {pack.licence if pack else 'ask the publisher of the pack'}")
        return "\n".join([*lines, *self.notes])

    def find_faces(self, pictures: Sequence[np.ndarray]) -> list[tuple[Face, ...]]:
        found: list[tuple[Face, ...]] = []
        with self._lock:
            for number, picture in enumerate(pictures, start=1):
                say(f"looking for faces in picture {number} of {len(pictures)}")
                found.append(self._find(picture))
        return found

    def _find(self, picture: np.ndarray) -> tuple[Face, ...]:
        height, width = picture.shape[:2]
        if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_ASPECT * min(height, width):
            return ()
        bgr = np.ascontiguousarray(picture[..., ::-1])
        models = dict(self._analysis.models)
        boxes, points = detect_in_tiles(models.pop("detection"), bgr)
        return tuple(
            self._face(_described(bgr, box, None if points is None else points[row], models.values()))
            for row, box in enumerate(boxes)
        )

    def _face(self, found: Mapping[str, Any]) -> Face:
        keypoints = found.get("kps")
        dense = next((found[task] for task in DENSE_LANDMARKS if task in found), None)
        embedding = found.get("embedding")
        return Face(
            box=Box(*(float(edge) for edge in found["bbox"])),
            score=float(found["det_score"]),
            landmarks=keypoints if dense is None else dense[:, :2],
            embeddings={} if embedding is None or self._recogniser is None else {self._recogniser: embedding},
            keypoints=keypoints,
        )


def load_insightface_pack(folder: Path, provider: Provider = Provider.AUTO) -> InsightFacePack:
    """Loads a folder of ONNX files.

    Args:
        folder: `.../insightface/models/<pack>`.
        provider: the device to run on.
    Returns:
        The analyser; its `notes` say what differs from the request.
    Raises:
        MissingModelError: there is no detector; the message says what was expected and what was found.
        CheckpointReadError: a file is damaged, or is not what insightface expects.
        MissingPackageError: insightface or onnxruntime is missing or broken.
    """
    available = import_onnxruntime().get_available_providers()
    face_analysis = _import_face_analysis()
    found = locate_onnx_files(folder)
    wanted = wanted_providers(provider, available)
    usable = [name for name in wanted if name in available]
    try:
        with guarded(CheckpointReadError, f"'{found}' cannot be loaded as a face analysis pack", advice=WHAT_BELONGS):
            analysis = face_analysis(name=str(found), providers=usable, allowed_modules=list(TASKS))
            analysis.prepare(ctx_id=0)
    except CheckpointReadError as error:
        if unreadable := _unreadable_files(found):
            raise CheckpointReadError(_damage_message(folder, found, unreadable)) from error
        if isinstance(error.__cause__, (AssertionError, KeyError)):  # none of the files is a detector
            missing = _missing_message(folder, found, "there is no detector among the ONNX files")
            raise MissingModelError(missing) from error
        raise
    for unused in [task for task in DENSE_LANDMARKS if task in analysis.models][1:]:
        del analysis.models[unused]
    detector, recogniser = analysis.models["detection"], analysis.models.get("recognition")
    if recogniser is not None and not detector.use_kps:
        raise MissingModelError(
            f"the detector in '{found}' finds boxes only, but the recogniser needs eyes, nose and mouth to align a "
            "face; use a detector with five points, such as that of buffalo_l or antelopev2"
        )
    used = detector.session.get_providers()[0]
    return InsightFacePack(
        name=folder.name,
        analysis=analysis,
        recogniser=None if recogniser is None else file_sha256(Path(recogniser.model_file)),
        notes=provider_notes(provider, wanted=wanted[0], used=used, available=available),
    )


def complete_pack(folder: Path, progress: Progress) -> None:
    """Downloads the missing files of the known pack with the folder's name. Does nothing for any other folder.

    Args:
        folder: `.../insightface/models/<pack>`; need not exist.
        progress: called after each part that arrives.
    Raises:
        DownloadError: a file cannot be downloaded, or is not the published one.
    """
    pack = known_pack(folder.name)
    if pack is not None:
        nested = _nested_folders(folder)
        download_pack(pack, nested[0] if len(nested) == 1 else folder, progress)


def locate_onnx_files(folder: Path) -> Path:
    """Returns the folder that holds a pack's ONNX files: the given one, or the only one inside it.

    Published archives often contain a folder of the same name, so that unpacking gives `antelopev2/antelopev2/*.onnx`.

    Raises:
        MissingModelError: there are none, or only a zip file that is still packed.
    """
    if any(folder.glob("*.onnx")):
        return folder
    nested = _nested_folders(folder)
    if len(nested) == 1:
        return nested[0]
    archives = [*folder.rglob("*.zip"), *folder.parent.glob(f"{folder.name}.zip")]
    if archives and not nested:
        raise MissingModelError(
            f"'{archives[0]}' is still packed; unpack it so that its .onnx files are in '{folder}', and run again"
        )
    raise MissingModelError(_missing_message(folder, folder, "there are no ONNX files"))


def _nested_folders(folder: Path) -> list[Path]:
    """Returns the folders with ONNX files inside a folder that has none itself."""
    return [] if any(folder.glob("*.onnx")) else sorted({file.parent for file in folder.rglob("*.onnx")})


def _described(bgr: np.ndarray, box: np.ndarray, points: np.ndarray | None, models: Iterable[Any]) -> Mapping[str, Any]:
    """Returns a face with everything that the other models of the pack see in it, as `FaceAnalysis.get` does."""
    from insightface.app.common import Face as Described

    face = Described(bbox=box[:4], kps=points, det_score=box[4])
    for model in models:
        model.get(bgr, face)
    return face


def _missing_message(folder: Path, searched: Path, what: str) -> str:
    pack = known_pack(folder.name)
    expected = ", ".join(str(folder / file.name) for file in pack.files) if pack else f"{folder / '*.onnx'}"
    files = sorted(str(file.relative_to(folder.parent)) for file in searched.rglob("*") if file.is_file())
    found = ", ".join(files[:12]) + (f" and {len(files) - 12} more" if len(files) > 12 else "") or "nothing"
    advice = "turn on download_if_missing, or put the files there" if pack else "put a detector and a recogniser there"
    downloadable = ", ".join(known.name for known in KNOWN_PACKS)
    return f"{what}; {advice} (packs that can be downloaded: {downloadable}); expected: {expected}; found: {found}"


def _unreadable_files(found: Path) -> dict[str, str]:
    """Returns which ONNX files of a folder cannot be opened at all, and why."""
    reasons: dict[str, str] = {}
    for file in sorted(found.glob("*.onnx")):
        try:
            open_onnx(file, [CPU])
        except CheckpointReadError as error:
            reasons[file.name] = reason_of(error.__cause__ or error)
    return reasons


def _damage_message(folder: Path, found: Path, unreadable: Mapping[str, str]) -> str:
    pack = known_pack(folder.name)
    damaged = damaged_files(pack, found) if pack else ()
    named = f" (not as published: {', '.join(damaged)})" if damaged else ""
    faults = "; ".join(f"{file}: {reason}" for file, reason in unreadable.items())
    return (
        f"{len(unreadable)} of the ONNX files in '{found}' cannot be read{named}; delete them, and download them again "
        f"or turn on download_if_missing ({faults})"
    )


def _import_face_analysis() -> type[FaceAnalysis]:
    """Returns insightface's FaceAnalysis, which is imported only when a pack is loaded."""
    with importing(OPENCV):  # insightface imports it, and would be called missing in its place
        import cv2  # noqa: F401  # pyright: ignore[reportUnusedImport]
    with importing("insightface", install=INSIGHTFACE):
        from insightface.app import FaceAnalysis
    return FaceAnalysis
