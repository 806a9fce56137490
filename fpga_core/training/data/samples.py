"""One sample of a training set: the six modalities, and the files that hold them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image

from ...boundaries import guarded
from ...errors import TrainingDataError
from ...shapes import Extent
from .batch import EMBEDDING_DIM
from .pictures import read_picture


class Modality(str, Enum):
    """The modalities of a sample, with the names of its files: `<key>.<modality>.<extension>`."""

    IMAGE = "image"
    CAPTION = "caption"
    SKELETON = "skeleton"
    FACE = "face"
    LANDMARKS = "landmarks"
    MASK = "mask"
    EMBEDDING = "embedding"

    @property
    def extensions(self) -> tuple[str, ...]:
        """The file extensions that can hold it. The first one is written."""
        return _EXTENSIONS.get(self, ("png", "jpg", "jpeg", "webp"))


_EXTENSIONS = {Modality.CAPTION: ("txt",), Modality.EMBEDDING: ("npy",)}
REQUIRED = tuple(modality for modality in Modality if modality is not Modality.EMBEDDING)
ORIGIN_FILE = "origin.json"
"""`<key>.origin.json` beside a sample says where its picture comes from. Nothing is trained on it."""

SAME_SIZE = (Modality.SKELETON, Modality.LANDMARKS, Modality.MASK)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSample:
    """A picture of one person with all its modalities.

    Attributes:
        key: the name of the sample, unique in its set.
        caption: what the picture shows; can be empty.
        image: (height, width, 3) uint8 RGB.
        skeleton: as image, the body's skeleton on black.
        landmarks: as image, the landmarks of the face on black.
        mask: (height, width) uint8, 255 on the face.
        face: (any height, any width, 3) uint8 RGB, the person's face with some margin.
        embedding: (512,) float32 of the face as the recogniser returned it; None if it is computed from `face`.
    """

    key: str
    caption: str
    image: np.ndarray
    skeleton: np.ndarray
    landmarks: np.ndarray
    mask: np.ndarray
    face: np.ndarray
    embedding: np.ndarray | None = None

    @property
    def extent(self) -> Extent:
        return _extent(self.image)

    def check(self, multiple_px: int) -> None:
        """Raises unless the pictures agree in size, and the UNet can halve that size often enough.

        Args:
            multiple_px: both sides must be multiples of this: the UNet's total stride times the autoencoder's 8.
        Raises:
            TrainingDataError: they do not; the message names the sample, the picture and the sizes.
        """
        for modality in SAME_SIZE:
            other = _extent(getattr(self, modality.value))
            if other != self.extent:
                raise TrainingDataError(
                    f"the {modality.value} of sample '{self.key}' is {other}, but its image is {self.extent}; resize "
                    "one of them"
                )
        if self.image.shape[0] % multiple_px or self.image.shape[1] % multiple_px:
            raise TrainingDataError(
                f"the image of sample '{self.key}' is {self.extent}, but the model needs multiples of {multiple_px} in "
                "both directions; crop or resize it with its skeleton, landmarks and mask"
            )
        if not self.mask.any():
            raise TrainingDataError(
                f"the mask of sample '{self.key}' is all black, so it shows no face; leave the sample out"
            )


@dataclass(frozen=True, eq=False)
class SampleFiles:
    """The contents of a sample's files, complete but not decoded.

    Attributes:
        key: the sample's name.
        contents: modality -> the file's name (`<modality>.<extension>`) and bytes.
    """

    key: str
    contents: Mapping[Modality, tuple[str, bytes]]

    @classmethod
    def from_contents(cls, key: str, files: Mapping[str, bytes]) -> SampleFiles:
        """Recognises a sample's files by their names, and ignores other files.

        Raises:
            TrainingDataError: a modality is missing or occurs twice; the message names the sample.
        """
        found: dict[Modality, tuple[str, bytes]] = {}
        for name, content in sorted(files.items()):
            modality = modality_of(name)
            if modality is None:
                continue
            if modality in found:
                raise TrainingDataError(f"sample '{key}' has both {found[modality][0]} and {name}; delete one of them")
            found[modality] = (name, content)
        if missing := [modality for modality in REQUIRED if modality not in found]:
            names = ", ".join(f"{modality.value}.{modality.extensions[0]}" for modality in missing)
            raise TrainingDataError(f"sample '{key}' has no {names}; add what is missing, or leave the sample out")
        return cls(key, found)

    def picture(self, modality: Modality) -> np.ndarray:
        """Returns (height, width, 3) uint8 RGB, or (height, width) for the mask.

        Raises:
            TrainingDataError: the file is not a picture.
        """
        name, content = self.contents[modality]
        failure = f"{name} of sample '{self.key}' ({len(content):,} bytes) cannot be read as a picture"
        with guarded(TrainingDataError, failure, advice="save it as PNG, JPEG or WebP, or leave the sample out"):
            return read_picture(content, is_mask=modality is Modality.MASK)

    def caption(self) -> str:
        """The caption, without white space around it.

        Raises:
            TrainingDataError: the file is not UTF-8.
        """
        return _decode_caption(self.key, self.contents[Modality.CAPTION][1])

    def embedding(self) -> np.ndarray | None:
        """The stored embedding, (512,) float32; None if there is none.

        Raises:
            TrainingDataError: the file does not hold such an array.
        """
        stored = self.contents.get(Modality.EMBEDDING)
        return None if stored is None else _decode_embedding(self.key, stored[1])

    def decode(self) -> TrainingSample:
        """Decodes the whole sample.

        Raises:
            TrainingDataError: a file cannot be read; the message names the sample and the file.
        """
        return TrainingSample(
            key=self.key,
            caption=self.caption(),
            image=self.picture(Modality.IMAGE),
            skeleton=self.picture(Modality.SKELETON),
            landmarks=self.picture(Modality.LANDMARKS),
            mask=self.picture(Modality.MASK),
            face=self.picture(Modality.FACE),
            embedding=self.embedding(),
        )


def encode_sample(sample: TrainingSample) -> dict[str, bytes]:
    """Encodes a sample as the contents of its files, which `SampleFiles` decodes to the same sample.

    Returns:
        `<modality>.<extension>` -> content, in the order of writing.
    """
    pictures = (Modality.IMAGE, Modality.SKELETON, Modality.FACE, Modality.LANDMARKS, Modality.MASK)
    files = {"caption.txt": sample.caption.encode()}
    files |= {f"{modality.value}.png": _encode_picture(getattr(sample, modality.value)) for modality in pictures}
    if sample.embedding is not None:
        buffer = io.BytesIO()
        np.save(buffer, sample.embedding.astype(np.float32), allow_pickle=False)
        files["embedding.npy"] = buffer.getvalue()
    return files


def modality_of(name: str) -> Modality | None:
    """Returns the modality that a file `<modality>.<extension>` holds; None for any other file."""
    stem, _, extension = name.partition(".")
    return next((m for m in Modality if m.value == stem and extension.lower() in m.extensions), None)


def split_name(name: str) -> tuple[str, str]:
    """Splits `<key>.<modality>.<extension>` at the second dot from its end; the key can hold further dots."""
    key, _, extension = name.rpartition(".")
    key, _, modality = key.rpartition(".")
    return key, f"{modality}.{extension}"


def _extent(picture: np.ndarray) -> Extent:
    return Extent(picture.shape[1], picture.shape[0])


def _encode_picture(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _decode_caption(key: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"caption.txt of sample '{key}' is not UTF-8: {error}; save it as UTF-8") from error


def _decode_embedding(key: str, content: bytes) -> np.ndarray:
    failure = f"embedding.npy of sample '{key}' cannot be read"
    with guarded(TrainingDataError, failure, advice="write it again, or delete it to compute it from the face"):
        stored = np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
        embedding = np.asarray(stored, dtype=np.float32) if stored.dtype.kind in "fiu" else np.zeros(0, np.float32)
        shape, kind = stored.shape, stored.dtype
    if embedding.shape != (EMBEDDING_DIM,) or not np.isfinite(embedding).all() or not embedding.any():
        raise TrainingDataError(
            f"embedding.npy of sample '{key}' is {shape} of {kind} or holds unusable numbers, but a recogniser gives "
            f"({EMBEDDING_DIM},) finite ones; write it again, or delete it to compute it from the face"
        )
    return embedding
