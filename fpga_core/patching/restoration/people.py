"""How the people of faces are made known to the model that restores them: what each way of `cast/backends.py` is in a
crop.

In a picture, people share one run and each acts in a place. A crop shows one person, so each way acts as the host's own
does, over the whole crop; only an adapter acts in the head's outline, as its people were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...identity.cast import Cast, as_cast
from ...identity.identity import Identity
from ...restoration.face_crops import FaceCrop
from ...restoration.settings import IdentityIn, RestoreSettings
from ...shapes import Extent
from ..cast.backends import (
    AdapterBackend,
    Applied,
    IdentityBackend,
    LoraBackend,
    ReferenceBackend,
    WordsBackend,
    backends_of,
)
from ..cast.references import encode_pictures, show_latents
from ..schedule import StepRange
from .identities import ActingFaces, FaceIdentities

WHOLE_RUN = StepRange()


class FacePeople:
    """People whose faces go through a model together, known in one way."""

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """Returns the model with what stays in it for all faces of these people, at the settings' strength."""
        return model

    def tell(self, to: Applied, faces: Sequence[FaceCrop], strength: float) -> Applied:
        """Returns an attached model and its prompts, with the people of a batch of faces.

        Args:
            strength: 1 is as trained; retries raise it.
        """
        return to

    def in_control(self, faces: Sequence[FaceCrop], strength: float) -> ActingFaces | None:
        """Returns the identities that act inside the ControlNet; None if none do."""
        return None

    def share(self, latent: Extent) -> float:
        """Returns what a call of the model takes more with these people, as a part of a call without them."""
        return 0.0


@dataclass(frozen=True, eq=False)
class AdapterFaces(FacePeople):
    """Everyone whom an adapter knows, in one batch: their tokens act in the heads of their crops."""

    identities: FaceIdentities
    where: IdentityIn

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        return model if self.where is IdentityIn.CONTROLNET else self.identities.attach(model)

    def tell(self, to: Applied, faces: Sequence[FaceCrop], strength: float) -> Applied:
        model, positive, negative = to
        if self.where is IdentityIn.CONTROLNET:
            return to
        return model, *self.identities.condition(positive, negative, self.identities.in_crops(faces, strength))

    def in_control(self, faces: Sequence[FaceCrop], strength: float) -> ActingFaces | None:
        return None if self.where is IdentityIn.UNET else self.identities.in_crops(faces, strength)


@dataclass(frozen=True, eq=False)
class ReferenceFaces(FacePeople):
    """People whose pictures have the same sizes, row by row in one batch: each crop has its own person's references.

    Attributes:
        latents: member of the cast -> the latents of its pictures, one row each.
        place: the whole crop, as the place of whoever it shows.
    """

    latents: Mapping[int, tuple[Tensor, ...]]
    place: Cast

    def tell(self, to: Applied, faces: Sequence[FaceCrop], strength: float) -> Applied:
        pictures = [self.latents[face.match.member] for face in faces if face.match]
        rows = [torch.cat(latents) for latents in zip(*pictures, strict=True)]
        return show_latents(*to, cast=self.place, latents=[rows], strength=strength, steps=WHOLE_RUN)

    def share(self, latent: Extent) -> float:
        pictures = next(iter(self.latents.values()))
        return sum(picture.shape[-1] * picture.shape[-2] for picture in pictures) / latent.num_cells


@dataclass(frozen=True, eq=False)
class LoraFaces(FacePeople):
    """One person, by the LoRA in the model's weights. It is loaded once for all faces of the person.

    The inversion runs with the same weights. A stronger retry loads the difference.

    Attributes:
        person: the person, as a cast.
        strength: that of `attach`.
    """

    backend: LoraBackend
    person: Cast
    strength: float

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        return self.backend.apply((model, [], []), cast=self.person, strength=self.strength, steps=WHOLE_RUN)[0]

    def tell(self, to: Applied, faces: Sequence[FaceCrop], strength: float) -> Applied:
        more = strength - self.strength
        return self.backend.apply(to, cast=self.person, strength=more, steps=WHOLE_RUN) if more else to


@dataclass(frozen=True, eq=False)
class WordsFaces(FacePeople):
    """One person, by words beside the prompt."""

    backend: WordsBackend
    person: Cast

    def tell(self, to: Applied, faces: Sequence[FaceCrop], strength: float) -> Applied:
        return self.backend.apply(to, cast=self.person, strength=strength, steps=WHOLE_RUN)

    def share(self, latent: Extent) -> float:
        return 0.5  # a prediction beside those for the prompt and the negative


@dataclass(frozen=True, eq=False)
class Meeting:
    """A cast that meets a model.

    Attributes:
        model: the model.
        cast: the people.
        settings: how faces are restored.
    """

    model: ModelPatcher
    cast: Cast
    settings: RestoreSettings


Members = Sequence[int]
"""Numbers of members of a cast."""


def _by_adapter(backend: AdapterBackend, members: Members, meeting: Meeting) -> list[tuple[Members, FacePeople]]:
    identities = FaceIdentities.encode(backend.adapter, meeting.cast, members)
    return [(members, AdapterFaces(identities, meeting.settings.identity_in))]


def _by_references(backend: ReferenceBackend, members: Members, meeting: Meeting) -> list[tuple[Members, FacePeople]]:
    sizes: dict[tuple[torch.Size, ...], dict[int, tuple[Tensor, ...]]] = {}
    for number in members:
        latents = encode_pictures(meeting.model, backend.vae, meeting.cast.members[number].identity)
        sizes.setdefault(tuple(latent.shape for latent in latents), {})[number] = latents
    place = _alone(meeting.cast, members[0])
    return [(tuple(latents), ReferenceFaces(latents, place)) for latents in sizes.values()]


def _by_lora(backend: LoraBackend, members: Members, meeting: Meeting) -> list[tuple[Members, FacePeople]]:
    strength = meeting.settings.identity_strength
    return [((number,), LoraFaces(backend, _alone(meeting.cast, number), strength)) for number in members]


def _by_words(backend: WordsBackend, members: Members, meeting: Meeting) -> list[tuple[Members, FacePeople]]:
    return [((number,), WordsFaces(backend, _alone(meeting.cast, number))) for number in members]


IN_CROPS: Mapping[type[IdentityBackend], Callable[[Any, Members, Meeting], list[tuple[Members, FacePeople]]]] = {
    AdapterBackend: _by_adapter,
    LoraBackend: _by_lora,
    ReferenceBackend: _by_references,
    WordsBackend: _by_words,
}
"""For each way of making people known: who goes through the model together, and how they are told to it."""


def _alone(cast: Cast, number: int) -> Cast:
    """Returns a member as the person of a whole crop. Places and strengths belong to the picture."""
    return as_cast(cast.members[number].identity)


@dataclass(frozen=True, eq=False)
class KnownPeople:
    """By what a model gets to know the members of a cast.

    Attributes:
        cast: the people.
        by: one tuple per member; it is empty if there is nothing by which the model could know the person.
    """

    cast: Cast
    by: tuple[tuple[IdentityBackend, ...], ...]

    @classmethod
    def of(cls, model: ModelPatcher, cast: Cast, backends: Sequence[IdentityBackend]) -> KnownPeople:
        return cls(cast, tuple(backends_of(model, member.identity, backends) for member in cast.members))

    @property
    def strangers(self) -> tuple[Identity, ...]:
        """The people whom the model cannot know."""
        return tuple(member.identity for member, by in zip(self.cast.members, self.by, strict=True) if not by)

    @property
    def remarks(self) -> list[str]:
        """What to tell the user: who is known by what, unless everyone is by an adapter."""
        if all(isinstance(backend, AdapterBackend) for by in self.by for backend in by):
            return []
        people = zip(self.cast.numbers, self.cast.members, self.by, strict=True)
        known = (
            f"#{number} {member.identity.name} by {' and '.join(way.name for way in by) or 'nothing but the prompt'}"
            for number, member, by in people
        )
        return [f"identities: {', '.join(known)}"]

    def groups(
        self, model: ModelPatcher, faces: Sequence[FaceCrop], settings: RestoreSettings
    ) -> list[tuple[tuple[FacePeople, ...], list[int]]]:
        """Returns which faces can go through a model together, and how their people are told to it.

        Args:
            model: the model; pictures are encoded for it.
            faces: each has a match.
            settings: how faces are restored.
        """
        meeting = Meeting(model, self.cast, settings)
        present = sorted({face.match.member for face in faces if face.match})
        told: dict[int, tuple[FacePeople, ...]] = {number: () for number in range(len(self.by))}
        for backend in dict.fromkeys(backend for by in self.by for backend in by):
            known = [number for number, by in enumerate(self.by) if backend in by]
            members = known if isinstance(backend, AdapterBackend) else [n for n in known if n in present]
            for together, people in IN_CROPS[type(backend)](backend, members, meeting) if members else ():
                told.update({number: (*told[number], people) for number in together})
        groups: dict[tuple[FacePeople, ...], list[int]] = {}
        for number, face in enumerate(faces):
            groups.setdefault(told[face.match.member] if face.match else (), []).append(number)
        return list(groups.items())
