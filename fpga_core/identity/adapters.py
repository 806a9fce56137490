"""Identity adapters, which turn a person into tokens that a model's cross attention reads."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..block_slots import BlockSlot
from ..errors import InvalidInputError, ShapeMismatchError
from .identity import Identity
from .recipes import RECIPES, AdapterKind, AdapterRecipe
from .recognisers import KNOWN_RECOGNISERS, recogniser_name
from .resampler import FacePlusProjection, FeatureResampler, Resampler

logger = logging.getLogger(__name__)


class KeyValue(NamedTuple):
    """A pair for one cross-attention layer: its key and value projections, or the keys and values that they give."""

    key: Tensor
    value: Tensor


class LowRank(NamedTuple):
    """A low-rank change of one layer's weight, `weight + up @ down`: down (rank, in), up (out, rank)."""

    down: Tensor
    up: Tensor


class Negative(str, Enum):
    """The tokens that an adapter puts into the negative."""

    ZERO_INPUTS = "zero_inputs"
    """The tokens of a zero embedding and of an image that is zero after pixel normalisation (the public adapters)."""
    TRAINED_NULL = "trained_null"
    SAME_TOKENS = "same_tokens"


@dataclass(frozen=True, eq=False, kw_only=True)
class IdentityAdapter:
    """An adapter, as loaded from its file.

    Attributes:
        name: its name in messages, usually that of the file.
        kind: the recipe that makes the tokens: a published one, or the pack's own.
        base: the architecture that it was trained for: "sd15", "sdxl", or another name.
        resampler: the network that makes the tokens, in the file's dtype; it runs in float32 on the CPU.
        projections: its own key/value projections per cross-attention layer; None uses the layer's projections, shared
            with the text.
        lora: `<path of a linear layer in ComfyUI's UNet>` -> low-rank change that belongs to the adapter; None if it
            has none, or if it is turned off.
        branch_hash: hash of the RepControlNet branch that it was trained with, or None.
        recogniser: hash of the recogniser whose embeddings it reads; None if it reads none.
        clip_model: key of the CLIP-Vision model that it reads; None if it reads any of its width, or none.
        negative: what the negative carries.
        null: trained tokens of the negative, (1, num_tokens, token_dim); only with `Negative.TRAINED_NULL`.
        structure_strength: weight of the CLIP features in FaceID-PlusV2, `s`.
    """

    name: str
    kind: AdapterKind
    base: str
    resampler: Resampler
    projections: Mapping[BlockSlot, KeyValue] | None = None
    lora: Mapping[str, LowRank] | None = None
    branch_hash: str | None = None
    recogniser: str | None = None
    clip_model: str | None = None
    negative: Negative = Negative.ZERO_INPUTS
    null: Tensor | None = None
    structure_strength: float = 1.0

    @property
    def recipe(self) -> AdapterRecipe:
        """The recipe of this kind of adapter."""
        return RECIPES[self.kind]

    @property
    def num_tokens(self) -> int:
        """The tokens per identity; FaceID-Portrait makes as many for each photo (`stack_tokens` evens them out)."""
        return self.resampler.num_tokens

    @property
    def token_dim(self) -> int:
        """The width of a token, which is the model's context width."""
        return self.resampler.token_dim

    @property
    def clip_dim(self) -> int | None:
        """The width of the CLIP hidden states that it reads; None if it reads none."""
        resampler = self.resampler
        if isinstance(resampler, FacePlusProjection):
            return resampler.feature_dim
        if isinstance(resampler, FeatureResampler) and self.recipe.reads_clip_only:
            return resampler.feature_dim
        return None

    @property
    def description(self) -> str:
        """A description of the adapter and of what it needs."""
        needs = [recogniser_name(self.recogniser)] if self.recogniser else []
        if self.clip_dim:
            needs.append(self.clip_model or f"CLIP-Vision {self.clip_dim} wide")
        return f"{self.kind.value} for {self.base} ({self.num_tokens} tokens; needs {' and '.join(needs)})"

    def tokens(self, identity: Identity) -> Tensor:
        """Makes an identity's tokens.

        Args:
            identity: a person, encoded with what this adapter reads.
        Returns:
            (1, num_tokens, token_dim) float32 on the CPU; FaceID-Portrait: (1, num_photos * num_tokens, token_dim).
        Raises:
            InvalidInputError: the identity does not hold what the adapter reads, or has embeddings of another
                recogniser.
        Source: the published pipelines (docs/formats.md lists them). Several photos are combined as the identity says.
        """
        embedding = self._embedding(identity) if self.recogniser else None
        clip_dim = self.clip_dim
        features = identity.hidden_states(self._clip_key(identity, clip_dim))[None] if clip_dim else None
        for doubt in self._doubts(identity):
            logger.warning("%s", doubt)
        return self._resample(embedding, features)

    def null_tokens(self, identity: Identity) -> Tensor:
        """Makes the tokens of nobody, which the negative carries.

        Args:
            identity: the person whose tokens the positive carries.
        Returns:
            The shape of `tokens`.
        Raises:
            InvalidInputError: as `tokens`.
        Source: the published pipelines send zero *inputs* through the resampler (a zero embedding, and the hidden
            states of an image of zeros after pixel normalisation). They never use zero tokens.
        """
        if self.negative is Negative.SAME_TOKENS:
            return self.tokens(identity)
        if self.null is not None:
            return self.null.float()
        embedding = torch.zeros_like(self._embedding(identity)) if self.recogniser else None
        clip_dim = self.clip_dim
        features = identity.clip_null[self._clip_key(identity, clip_dim)].float() if clip_dim else None
        return self._resample(embedding, features)

    def _resample(self, embedding: Tensor | None, features: Tensor | None) -> Tensor:
        """(photos, 512) and (1, num_features, clip_dim), each if the adapter reads it, to (1, tokens, token_dim)."""
        weights = {name: tensor.to("cpu", torch.float32) for name, tensor in self.resampler.state_dict().items()}
        options = {}
        if isinstance(self.resampler, FacePlusProjection):
            options = {"shortcut": self.recipe.has_shortcut, "scale": self.structure_strength}
        if isinstance(self.resampler, FeatureResampler) and embedding is not None:
            embedding = embedding[:, None]  # (photos, 512) -> (photos, 1, 512): the embedding is the only feature
        inputs = tuple(part for part in (embedding, features) if part is not None)
        with torch.no_grad():
            tokens = torch.func.functional_call(self.resampler, weights, inputs, options)
        return tokens.flatten(0, 1)[None]  # photos side by side: (photos, tokens, dim) -> (1, photos * tokens, dim)

    def _embedding(self, identity: Identity) -> Tensor:
        """Returns the face embeddings as the resampler reads them: (1, 512), or one row for each photo."""
        recognisers, needed_by = self._recognisers(identity), f"the identity adapter '{self.name}'"
        if self.recipe.num_photos is None:
            embedding = identity.embedding(recognisers, needed_by)[None].float()
        else:
            embedding = identity.photo_embeddings(recognisers, needed_by)[: self.recipe.num_photos].float()
        return functional.normalize(embedding, dim=-1) if self.recipe.normalises_embedding else embedding

    def _recognisers(self, identity: Identity) -> tuple[str, ...]:
        """Returns the recognisers whose embeddings can be used, the right one first; `_doubts` names an unknown one."""
        if self.recogniser is None:
            return ()
        if not self.recipe.takes_unknown_recognisers:
            return (self.recogniser,)
        return (self.recogniser, *(key for key in identity.embeddings if key not in KNOWN_RECOGNISERS))

    def _doubts(self, identity: Identity) -> list[str]:
        """Returns warnings about an identity that the adapter can read."""
        doubts: list[str] = []
        if self.recogniser and self.recogniser not in identity.embeddings:
            used = next(key for key in self._recognisers(identity) if key in identity.embeddings)
            doubts.append(
                f"'{self.name}' needs embeddings from {recogniser_name(self.recogniser)}, but those of "
                f"'{identity.name}' come from an unknown recogniser ({used[:12]}); they are used as they are"
            )
        num_photos = self.recipe.num_photos
        if num_photos is not None and identity.num_photos > num_photos:
            doubts.append(
                f"'{self.name}' reads {num_photos} photos, but '{identity.name}' has {identity.num_photos}; the last "
                "ones are not used"
            )
        return doubts

    def _clip_key(self, identity: Identity, clip_dim: int) -> str:
        if self.clip_model is None:
            return identity.clip_model(clip_dim, f"the identity adapter '{self.name}'")
        if self.clip_model not in identity.clip_hidden:
            found = ", ".join(identity.clip_hidden) or "none"
            raise InvalidInputError(
                f"the identity adapter '{self.name}' was trained with the CLIP-Vision model {self.clip_model}, but the "
                f"identity '{identity.name}' holds hidden states of: {found}; encode the photos with that model"
            )
        return self.clip_model


def stack_tokens(tokens: Sequence[Tensor]) -> Tensor:
    """Stacks the tokens of several identities, repeating whole sets if their numbers differ.

    Softmax attention over a set of keys and values does not change if the whole set is repeated. Identities that were
    encoded from different numbers of photos can therefore share one batch exactly, without a mask.

    Args:
        tokens: per identity (1, num_tokens_i, token_dim).
    Returns:
        (identities, least common multiple of the numbers of tokens, token_dim).
    Raises:
        ShapeMismatchError: the widths differ.
    """
    if len({part.shape[-1] for part in tokens}) > 1:
        widths = ", ".join(str(part.shape[-1]) for part in tokens)
        raise ShapeMismatchError(f"identity tokens are {widths} wide; use one adapter for all identities of a cast")
    length = math.lcm(*(part.shape[1] for part in tokens))
    return torch.cat([part.repeat(1, length // part.shape[1], 1) for part in tokens])
