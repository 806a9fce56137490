"""An identity: what is known of one person.

That is what encoders saw in photos, reference pictures, a LoRA, or words. An identity holds nothing of a model: every
photo's embedding and hidden states are as the encoders returned them, and pictures as they were given. What a model
understands of it is made when a cast is applied.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInputError, ShapeMismatchError
from .recognisers import recogniser_name, recogniser_names

EMBEDDING_DIM = 512


class Combine(str, Enum):
    """How several photos of one person are combined."""

    MEAN = "mean"
    MEDIAN = "median"
    """The median of each element, which one bad photo among many does not shift."""

    def __call__(self, photos: Tensor) -> Tensor:
        """Reduces the first axis of `photos`, (num_photos, ...)."""
        if photos.shape[0] == 1:
            return photos[0]
        if self is Combine.MEAN:
            return photos.mean(dim=0)
        ordered = photos.sort(dim=0).values
        return (ordered[(len(photos) - 1) // 2] + ordered[len(photos) // 2]) / 2


PHOTO_VIEW = "+photo"
"""What follows a CLIP-Vision model's key if it saw the photos themselves, and not aligned faces."""

_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class PersonLora:
    """A LoRA that was trained on one person.

    Attributes:
        name: its name for the user.
        weights: the tensors of its file.
        strength: how strongly it changes the model; 1 is as trained.
        trigger_words: the words that it was trained to answer to.
    """

    name: str
    weights: Mapping[str, Tensor] = field(repr=False)
    strength: float = 1.0
    trigger_words: str = ""


@dataclass(frozen=True, eq=False)
class Identity:
    """One person: as encoders saw them in `num_photos` photos, in pictures, as a LoRA, in words, or several of these.

    Attributes:
        name: the person's name, shown in labels and messages.
        embeddings: recogniser hash -> (num_photos, 512), as the recogniser returned it, not normalised.
        clip_hidden: CLIP-Vision model key -> (num_photos, tokens, width), penultimate hidden states of the aligned
            faces; with `PHOTO_VIEW` after the key, of the photos themselves.
        clip_null: same keys -> (1, tokens, width), hidden states of an image that is zero after pixel normalisation,
            which the public adapters use in the negative.
        combine: "mean" or "median": how the photos are combined.
        pictures: reference pictures, (height, width, 3) each, float32 RGB in [0, 1].
        lora: a LoRA that was trained on the person.
        words: how a prompt speaks of the person.
    """

    name: str
    embeddings: Mapping[str, Tensor] = field(default_factory=lambda: _NOTHING, repr=False)
    clip_hidden: Mapping[str, Tensor] = field(default_factory=lambda: _NOTHING, repr=False)
    clip_null: Mapping[str, Tensor] = field(default_factory=lambda: _NOTHING, repr=False)
    combine: str = Combine.MEAN.value
    pictures: tuple[Tensor, ...] = field(default=(), repr=False)
    lora: PersonLora | None = None
    words: str = ""

    def __post_init__(self) -> None:
        check_identity(self)

    @property
    def num_photos(self) -> int:
        """The number of photos that encoders saw; 0 if none did."""
        return next((seen.shape[0] for seen in (*self.embeddings.values(), *self.clip_hidden.values())), 0)

    @property
    def prompt(self) -> str:
        """The words that call the person in a prompt, with the LoRA's trigger words first; they may be empty."""
        return ", ".join(filter(None, (self.lora.trigger_words if self.lora else "", self.words)))

    @property
    def description(self) -> str:
        """What is known of the person, one fact per line."""
        photos = f"{self.num_photos} photos, combined by {self.combine}" if self.num_photos > 1 else "1 photo"
        facts = [f"{self.name}: {photos if self.num_photos else 'not encoded'}"]
        facts += [f"embeddings: {recogniser_name(recogniser)}" for recogniser in self.embeddings]
        facts += [f"CLIP-Vision: {key}" for key in self.clip_hidden]
        if self.pictures:
            facts.append(f"reference pictures: {len(self.pictures)}")
        if self.lora:
            facts.append(f"LoRA: {self.lora.name}, strength {self.lora.strength:g}")
        if self.prompt:
            facts.append(f"words: {self.prompt}")
        return "\n".join(facts)

    def photo_embeddings(self, recognisers: Collection[str], needed_by: str) -> Tensor:
        """Returns every photo's embedding of the one of `recognisers` that this identity was encoded with.

        Args:
            recognisers: hashes of the recognisers that the adapter was trained with, the preferred one first.
            needed_by: what needs the embeddings, for the message.
        Returns:
            (num_photos, 512), as the recogniser returned it.
        Raises:
            InvalidInputError: the identity has only embeddings of other recognisers, or none.
        """
        for recogniser in recognisers:
            if recogniser in self.embeddings:
                return self.embeddings[recogniser]
        raise InvalidInputError(
            f"{needed_by} needs face embeddings of {recogniser_names(recognisers)}, but the identity '{self.name}' has "
            f"those of {recogniser_names(self.embeddings)}; embeddings of different recognisers are not "
            "interchangeable: encode the photos again with the face analysis pack that has the right one"
        )

    def embedding(self, recognisers: Collection[str], needed_by: str) -> Tensor:
        """Combines the photos' embeddings into one, with the length that the recogniser gives.

        The direction combines the normalised embeddings, so that no photo counts more because its embedding is longer.
        The length is the mean length. A single photo is returned as it is.

        Returns:
            (512,), not normalised. Adapters that read normalised embeddings use `torch.nn.functional.normalize`.
        Raises:
            InvalidInputError: as `photo_embeddings`.
        """
        photos = self.photo_embeddings(recognisers, needed_by)
        if photos.shape[0] == 1:
            return photos[0]
        direction = Combine(self.combine)(functional.normalize(photos.float(), dim=-1))
        return functional.normalize(direction, dim=-1) * _lengths(photos.float()).mean()

    def embedding_array(self, recogniser: str, needed_by: str) -> np.ndarray:
        """The photos' combined embedding by one recogniser, for comparisons with faces; (512,) float32.

        Raises:
            InvalidInputError: the identity was not encoded with that recogniser.
        """
        return self.embedding([recogniser], needed_by).detach().cpu().float().numpy()

    def clip_model(self, width: int, needed_by: str, *, of_photos: bool = False) -> str:
        """Returns the key of the CLIP-Vision model with hidden states of `width` that this identity was encoded with.

        Args:
            width: width of the hidden states.
            needed_by: what needs them, for the message.
            of_photos: whether those of the photos themselves are preferred, or those of the aligned faces. If there are
                only the others, they are taken.
        Raises:
            InvalidInputError: there is none, or there are several.
        """
        wide = [key for key, hidden in self.clip_hidden.items() if hidden.shape[-1] == width]
        keys = [key for key in wide if key.endswith(PHOTO_VIEW) == of_photos] or wide
        if len(keys) == 1:
            return keys[0]
        found = ", ".join(f"{key} ({hidden.shape[-1]} wide)" for key, hidden in self.clip_hidden.items()) or "none"
        raise InvalidInputError(
            f"{needed_by} needs the hidden states of exactly one CLIP-Vision model that is {width} wide (ViT-H is "
            f"1280, ViT-bigG 1664, ViT-L 1024), but the identity '{self.name}' holds {len(keys)} of them (it holds in "
            f"all: {found}); encode the photos with the CLIP-Vision model that the adapter was trained with"
        )

    def hidden_states(self, clip_model: str) -> Tensor:
        """Combines the photos' CLIP hidden states into one, (tokens, width)."""
        return Combine(self.combine)(self.clip_hidden[clip_model].float())

    def extended_by(self, other: Identity) -> Identity:
        """Returns this identity with what other encoders saw in the same photos, with this one's name and combine rule.

        Pictures, a LoRA and words are taken from the other if this one has none.

        Raises:
            ShapeMismatchError: the two were encoded from different numbers of photos.
            InvalidInputError: both hold what the same encoder saw, and it differs.
        """
        if self.num_photos and other.num_photos and self.num_photos != other.num_photos:
            raise ShapeMismatchError(
                f"'{self.name}' was encoded from {self.num_photos} photos and '{other.name}' from {other.num_photos}; "
                "encode both from the same photos (a dropped outlier counts too)"
            )
        for kind in ("embeddings", "clip_hidden"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            for key in mine.keys() & theirs.keys():
                if not torch.equal(mine[key], theirs[key]):
                    raise InvalidInputError(
                        f"'{self.name}' and '{other.name}' differ in what {key[:16]} saw, so they come from different "
                        "photos; encode both from the same photos"
                    )
        return replace(
            self,
            embeddings={**other.embeddings, **self.embeddings},
            clip_hidden={**other.clip_hidden, **self.clip_hidden},
            clip_null={**other.clip_null, **self.clip_null},
            pictures=self.pictures or other.pictures,
            lora=self.lora or other.lora,
            words=self.words or other.words,
        )


def check_identity(identity: Identity) -> None:
    """Raises unless an identity's parts fit together.

    Raises:
        InvalidInputError: nothing is known of the person, a value is not finite, an embedding is zero, or the combine
            rule is unknown.
        ShapeMismatchError: a tensor has the wrong shape, or the parts come from different numbers of photos.
    """
    name = identity.name
    if not (identity.embeddings or identity.clip_hidden or identity.pictures or identity.lora or identity.words):
        raise InvalidInputError(
            f"the identity '{name}' holds neither a face embedding nor CLIP hidden states; connect a face analysis, a "
            "CLIP-Vision model, or both when encoding, or describe the person with Describe Person"
        )
    rules = [rule.value for rule in Combine]
    if identity.combine not in rules:
        raise InvalidInputError(
            f"the identity '{name}' sets combine to '{identity.combine}'; choose one of {', '.join(rules)}"
        )
    for recogniser, photos in identity.embeddings.items():
        if photos.ndim != 2 or photos.shape[1] != EMBEDDING_DIM or photos.shape[0] < 1:
            raise ShapeMismatchError(
                f"the embeddings of '{name}' by {recogniser_name(recogniser)} are {tuple(photos.shape)}, not "
                f"(photos, {EMBEDDING_DIM}); encode the photos again"
            )
        if not torch.isfinite(photos).all() or (_lengths(photos) == 0).any():
            raise InvalidInputError(
                f"an embedding of '{name}' by {recogniser_name(recogniser)} is zero or not finite; encode the "
                "photos again"
            )
    if identity.clip_hidden.keys() != identity.clip_null.keys():
        raise InvalidInputError(
            f"the identity '{name}' has CLIP hidden states of {sorted(identity.clip_hidden)}, but for the negative "
            f"those of {sorted(identity.clip_null)}; both must match: encode the photos again"
        )
    for key, hidden in identity.clip_hidden.items():
        null = identity.clip_null[key]
        if hidden.ndim != 3 or hidden.shape[0] < 1 or null.shape != (1, *hidden.shape[1:]):
            raise ShapeMismatchError(
                f"the CLIP hidden states of '{name}' by {key} are {tuple(hidden.shape)}, and those of the negative "
                f"{tuple(null.shape)}; they must be (photos, tokens, width) and (1, tokens, width): encode the photos "
                "again"
            )
        if not torch.isfinite(hidden).all() or not torch.isfinite(null).all():
            raise InvalidInputError(
                f"the CLIP hidden states of '{name}' by {key} are not finite; encode the photos again"
            )
    for number, picture in enumerate(identity.pictures, start=1):
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise ShapeMismatchError(
                f"reference picture {number} of '{name}' is {tuple(picture.shape)}, not (height, width, 3); describe "
                "the person again"
            )
        if not torch.isfinite(picture).all():
            raise InvalidInputError(f"reference picture {number} of '{name}' is not finite; describe the person again")
    if identity.lora is not None and not math.isfinite(identity.lora.strength):
        raise InvalidInputError(f"the strength of the LoRA of '{name}' is not finite; describe the person again")
    counts = {photos.shape[0] for photos in (*identity.embeddings.values(), *identity.clip_hidden.values())}
    if len(counts) > 1:
        raise ShapeMismatchError(
            f"the parts of the identity '{name}' come from different numbers of photos ({sorted(counts)}); encode them "
            "together"
        )


def _lengths(photos: Tensor) -> Tensor:
    return torch.linalg.vector_norm(photos, dim=-1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
