"""The face recognisers that the public adapters were trained with, identified by the SHA-256 of their ONNX file.

Embeddings of different recognisers are not comparable, and several of these files share one name (`glintr100.onnx` is
both antelopev2's and AuraFace's), so only the hash says which one an embedding comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

BUFFALO_L = "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"
"""buffalo_l's w600k_r50.onnx, 174,383,860 bytes, which the IP-Adapter FaceID family needs.
Source: LFS pointer at huggingface.co/maze/faceX/commit/726aff7aeaf112e20a5e1ccfd7159b84ce7a53ce."""

ANTELOPEV2 = "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"
"""antelopev2's glintr100.onnx, 260,665,334 bytes, which InstantID needs.
Source: LFS pointer at huggingface.co/Charles-Elena/antelopev2/commit/60daf4e66670a638078e1c65fe27643e3f57b796."""

AURAFACE = "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60"
"""AuraFace v1's glintr100.onnx, which is Apache-2.0. No public adapter accepts its embeddings.
Source: huggingface.co/fal/AuraFace-v1/blob/bf13b6d82eb80bf47ac057ca4338ceefe878dd68/glintr100.onnx."""

BUFFALO_S = "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"
"""buffalo_s's and buffalo_sc's w600k_mbf.onnx, 13,616,099 bytes.
Source: LFS pointer at huggingface.co/WePrompt/buffalo_sc/commit/229b65be0dc7f8f33b55478772e8d3289580c356."""

KNOWN_RECOGNISERS: Mapping[str, str] = MappingProxyType(
    {
        BUFFALO_L: "buffalo_l (w600k_r50)",
        ANTELOPEV2: "antelopev2 (glintr100)",
        AURAFACE: "AuraFace (glintr100)",
        BUFFALO_S: "buffalo_s / buffalo_sc (w600k_mbf)",
    }
)


def recogniser_name(recogniser: str) -> str:
    """Returns the name of a recogniser for the user: its known name, or the first digits of its hash."""
    return KNOWN_RECOGNISERS.get(recogniser, f"recogniser {recogniser[:12]}")


def recogniser_names(recognisers: Iterable[str]) -> str:
    """Several recognisers in one phrase, `none` if there are none."""
    return ", ".join(recogniser_name(recogniser) for recogniser in recognisers) or "none"
