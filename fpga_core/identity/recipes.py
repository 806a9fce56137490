"""The kinds of identity adapters, and a table of their differences."""

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
        recogniser: hash of the recogniser that every adapter of this kind was trained with; None if it reads no
            embedding, or if each file names its own recogniser.
        takes_unknown_recognisers: whether it also reads embeddings of a recogniser that the pack does not know, which
            may be the right one in another file (converted, quantised). A recogniser that is known to be a different
            one is never accepted.
        num_photos: the largest number of photos that get their own tokens; None if the photos' embeddings are combined.
        normalises_embedding: whether the embedding is scaled to unit length.
        reads_clip_only: whether its resampler reads only CLIP features, and no embedding.
        has_shortcut: whether the embedding's tokens are added to the structure from CLIP features.
        replaces_text: whether its tokens take the place of the text inside a ControlNet, where the ControlNet's own
            projections read them. Otherwise they are read in addition to the text.
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
"""The recipes of the published pipelines (docs/formats.md lists them), and the pack's own."""
