"""The kinds of identity adapters, and one table of what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from .recognisers import ANTELOPEV2, BUFFALO_L

MAX_PORTRAIT_PHOTOS = 5


class AdapterKind(Enum):
    """The adapters that the pack knows, by their usual names."""

    FACEID = "IP-Adapter FaceID"
    FACEID_PLUS = "IP-Adapter FaceID-Plus"
    FACEID_PLUS_V2 = "IP-Adapter FaceID-PlusV2"
    FACEID_PORTRAIT = "IP-Adapter FaceID-Portrait"
    FACEID_PORTRAIT_UNNORM = "IP-Adapter FaceID-Portrait (unnormalised)"
    PLUS_FACE = "IP-Adapter plus-face"
    INSTANTID = "InstantID"
    FPGA = "FPGA"


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """How one kind of adapter makes its tokens, and how a network reads them.

    Attributes:
        recogniser: hash of the recogniser that every adapter of this kind was trained with; None: it reads no
            embedding, or each file names its own.
        takes_unknown_recognisers: whether embeddings of a recogniser that the pack does not know are read too: it may
            be the right one in another file (converted, quantised). One that is known to be another never is.
        num_photos: most photos that make tokens of their own; None: the photos' embeddings are combined into one.
        normalises_embedding: whether the embedding is brought to unit length.
        reads_clip_only: whether its resampler reads CLIP features alone, and no embedding.
        has_shortcut: whether the embedding's tokens are added to the structure that they gather from CLIP features.
        replaces_text: whether its tokens stand in the text's place inside a ControlNet, read by the ControlNet's own
            projections; else they are read beside the text.
    """

    recogniser: str | None
    takes_unknown_recognisers: bool = True
    num_photos: int | None = None
    normalises_embedding: bool = True
    reads_clip_only: bool = False
    has_shortcut: bool = True
    replaces_text: bool = False


RECIPES: Mapping[AdapterKind, AdapterRecipe] = MappingProxyType(
    {
        AdapterKind.FACEID: AdapterRecipe(recogniser=BUFFALO_L),
        AdapterKind.FACEID_PLUS: AdapterRecipe(recogniser=BUFFALO_L, has_shortcut=False),
        AdapterKind.FACEID_PLUS_V2: AdapterRecipe(recogniser=BUFFALO_L),
        AdapterKind.FACEID_PORTRAIT: AdapterRecipe(recogniser=BUFFALO_L, num_photos=MAX_PORTRAIT_PHOTOS),
        AdapterKind.FACEID_PORTRAIT_UNNORM: AdapterRecipe(
            recogniser=BUFFALO_L, num_photos=MAX_PORTRAIT_PHOTOS, normalises_embedding=False
        ),
        AdapterKind.PLUS_FACE: AdapterRecipe(recogniser=None, reads_clip_only=True),
        AdapterKind.INSTANTID: AdapterRecipe(recogniser=ANTELOPEV2, normalises_embedding=False, replaces_text=True),
        AdapterKind.FPGA: AdapterRecipe(recogniser=None, takes_unknown_recognisers=False),
    }
)
"""What each published pipeline does (docs/formats.md lists them), and the pack's own."""
