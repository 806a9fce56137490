"""Face analysis packs that can be downloaded, with their files, addresses and licences."""

from __future__ import annotations

from dataclasses import dataclass, replace

INSIGHTFACE_LICENCE = "insightface's: research only, no commercial use"
AURAFACE_LICENCE = (
    "the recogniser is Apache-2.0 and free for commercial use; the detector and the landmarks in the pack are "
    "insightface's, for research only"
)


@dataclass(frozen=True)
class PackFile:
    """One ONNX file of a pack."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelPack:
    """A pack as published on the Hugging Face hub.

    Attributes:
        name: of the folder that it belongs in.
        licence: what the licence allows, in a few words.
        repository, revision, folder: the place of its files.
        files: the detector, the recogniser and, if the pack has them, the 68 landmarks.
    """

    name: str
    licence: str
    repository: str
    revision: str
    folder: str
    files: tuple[PackFile, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


_SCRFD_10G = PackFile(
    "scrfd_10g_bnkps.onnx", 16_923_827, "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
)
_LANDMARKS = PackFile("1k3d68.onnx", 143_607_619, "df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc")

KNOWN_PACKS = (
    ModelPack(
        name="buffalo_l",
        licence=INSIGHTFACE_LICENCE,
        repository="public-data/insightface",
        revision="33c1063c49c785b7652d3fd529f86fa4f149392b",
        folder="models/buffalo_l",
        files=(
            replace(_SCRFD_10G, name="det_10g.onnx"),
            PackFile("w600k_r50.onnx", 174_383_860, "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"),
            _LANDMARKS,
        ),
    ),
    ModelPack(
        name="antelopev2",
        licence=INSIGHTFACE_LICENCE,
        repository="DIAMONIK7777/antelopev2",
        revision="ba0c3e10f4548361eb9a63265d87ce1140ab5a05",
        folder="",
        files=(
            _SCRFD_10G,
            PackFile("glintr100.onnx", 260_665_334, "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"),
            _LANDMARKS,
        ),
    ),
    ModelPack(
        name="auraface",
        licence=AURAFACE_LICENCE,
        repository="fal/AuraFace-v1",
        revision="bf13b6d82eb80bf47ac057ca4338ceefe878dd68",
        folder="",
        files=(
            _SCRFD_10G,
            PackFile("glintr100.onnx", 260_694_151, "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60"),
            _LANDMARKS,
        ),
    ),
    ModelPack(
        name="buffalo_sc",
        licence=INSIGHTFACE_LICENCE,
        repository="WePrompt/buffalo_sc",
        revision="229b65be0dc7f8f33b55478772e8d3289580c356",
        folder="",
        files=(
            PackFile("det_500m.onnx", 2_524_817, "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a"),
            PackFile("w600k_mbf.onnx", 13_616_099, "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"),
        ),
    ),
)


def known_pack(name: str) -> ModelPack | None:
    """Returns the pack with this folder name; None for any other folder."""
    return next((pack for pack in KNOWN_PACKS if pack.name == name.lower()), None)
