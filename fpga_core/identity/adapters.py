"""Identity adapters, which turn a person into tokens that a model's cross attention reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..block_slots import BlockSlot
from ..errors import InvalidInputError
from .identity import PHOTO_VIEW, Identity
from .people import CPU, EncodedPeople, Kept, KeyValue, ReadByAdapter, make_tokens, project
from .recipes import RECIPES, AdapterKind, AdapterRecipe
from .recognisers import KNOWN_RECOGNISERS, recogniser_name
from .resampler import FacePlusProjection, FeatureResampler, Resampler

logger = logging.getLogger(__name__)


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
        resampler: the network that makes the tokens, in the file's dtype; it runs in float32.
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
        choice: how its kind was chosen, for the user; empty if its tensors leave only one.
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
    choice: str = ""
    _kept: Kept = field(default_factory=Kept, init=False, repr=False)

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
        described = f"{self.kind.value} for {self.base} ({self.num_tokens} tokens; needs {' and '.join(needs)})"
        return "\n".join(filter(None, (described, self.choice)))

    def tokens(self, identity: Identity) -> Tensor:
        """Makes an identity's tokens, as `encode` for one person."""
        return self.encode([identity])[0][0].tokens

    def null_tokens(self, identity: Identity) -> Tensor:
        """Makes the tokens of nobody in the place of an identity, as `encode` for one person."""
        return self.encode([identity])[1][0].tokens

    def encode(
        self, identities: Sequence[Identity], device: torch.device = CPU
    ) -> tuple[list[EncodedPeople], list[EncodedPeople]]:
        """Makes the tokens of people, and of nobody in their place, and projects both with the adapter's own layers.

        What is made is kept with the adapter. Only new people are computed, all at once.

        Args:
            identities: people, encoded with what this adapter reads.
            device: where new ones are computed.
        Returns:
            What the positive and what the negative carries of each person. The tokens are (1, num_tokens, token_dim)
            float32 on the CPU; FaceID-Portrait: (1, num_photos * num_tokens, token_dim).
        Raises:
            InvalidInputError: an identity does not hold what the adapter reads, or has embeddings of another
                recogniser.
        Source: the published pipelines (docs/formats.md lists them). Several photos are combined as the identity says.
            For the negative, they send zero *inputs* through the resampler (a zero embedding, and the hidden states of
            an image of zeros after pixel normalisation). They never use zero tokens.
        """
        new = [identity for identity in dict.fromkeys(identities) if identity not in self._kept.people]
        made = self._made([self._read(identity) for identity in new], device)
        self._kept.people.update(zip(new, made, strict=True))
        for doubt in (doubt for identity in identities for doubt in self._doubts(identity)):
            logger.warning("%s", doubt)
        people = [self._kept.people[identity] for identity in identities]
        return people, self._nobody(identities, people, device)

    def is_encoded(self, identities: Sequence[Identity]) -> bool:
        """Returns whether `encode` has nothing left to compute for these people."""
        return all(identity in self._kept.people for identity in identities)

    @property
    def num_bytes(self) -> int:
        """The memory of the resampler in float32, and of the largest of the adapter's own projections."""
        sizes = [weight.numel() for pair in (self.projections or {}).values() for weight in pair]
        return 4 * (sum(parameter.numel() for parameter in self.resampler.parameters()) + max(sizes, default=0))

    def _nobody(
        self, identities: Sequence[Identity], people: list[EncodedPeople], device: torch.device
    ) -> list[EncodedPeople]:
        """Nobody in the place of each person. It differs only with the number of photos and the CLIP-Vision model."""
        if self.negative is Negative.SAME_TOKENS:
            return people
        read = [self._read_of_nobody(identity) for identity in identities]
        new = {nobody.key: nobody for nobody in read if nobody.key not in self._kept.nobody}
        if self.null is not None:
            made = self._projected([self.null.float()] * len(new), device)
        else:
            made = self._made(list(new.values()), device)
        self._kept.nobody.update(zip(new, made, strict=True))
        return [self._kept.nobody[nobody.key] for nobody in read]

    def _made(self, read: Sequence[ReadByAdapter], device: torch.device) -> list[EncodedPeople]:
        if not read:
            return []
        tokens = make_tokens(
            self.resampler,
            read,
            has_shortcut=self.recipe.has_shortcut,
            structure_strength=self.structure_strength,
            device=device,
        )
        return self._projected(tokens, device)

    def _projected(self, tokens: Sequence[Tensor], device: torch.device) -> list[EncodedPeople]:
        if self.projections is None:
            return [EncodedPeople(part) for part in tokens]
        layers = project(self.projections, tokens, device)
        return [EncodedPeople(*person) for person in zip(tokens, layers, strict=True)]

    def _read(self, identity: Identity) -> ReadByAdapter:
        """What the resampler reads of a person."""
        clip_dim = self.clip_dim
        return ReadByAdapter(
            self._embedding(identity) if self.recogniser else None,
            identity.hidden_states(self._clip_key(identity, clip_dim))[None] if clip_dim else None,
        )

    def _read_of_nobody(self, identity: Identity) -> ReadByAdapter:
        """What the resampler reads of nobody in the place of a person; nothing if nobody has trained tokens."""
        if self.null is not None:
            return ReadByAdapter(None, None)
        clip_dim = self.clip_dim
        return ReadByAdapter(
            torch.zeros_like(self._embedding(identity)) if self.recogniser else None,
            identity.clip_null[self._clip_key(identity, clip_dim)].float() if clip_dim else None,
        )

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
            needed_by = f"the identity adapter '{self.name}'"
            return identity.clip_model(clip_dim, needed_by, of_photos=self.recipe.reads_clip_only)
        views = [key for key in (self.clip_model, self.clip_model + PHOTO_VIEW) if key in identity.clip_hidden]
        if not views:
            found = ", ".join(identity.clip_hidden) or "none"
            raise InvalidInputError(
                f"the identity adapter '{self.name}' was trained with the CLIP-Vision model {self.clip_model}, but the "
                f"identity '{identity.name}' holds hidden states of: {found}; encode the photos with that model"
            )
        return views[0]
