"""The ways in which a person is made known to a model, one of which is chosen when a cast meets a model.

A cast holds people and places and knows no base. Each backend turns one kind of what is known of a person into what a
base understands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ...errors import UnsupportedModeError
from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast
from ...identity.identity import Identity, PersonLora
from ...identity.layer_emphasis import LayerEmphasis
from ..conditioning import Conditioning
from ..schedule import StepRange
from .apply import apply_cast
from .loras import apply_loras, lora_patches
from .references import apply_references, reading_family
from .words import say_words

Applied = tuple[ModelPatcher, Conditioning, Conditioning]
"""A model and its prompts, positive and negative, with people."""


class IdentityBackend(Protocol):
    """A way in which a person is made known to a model."""

    @property
    def name(self) -> str: ...

    def knows(self, model: ModelPatcher, person: Identity) -> bool:
        """Returns whether a model gets to know a person this way."""
        ...

    def apply(self, to: Applied, *, cast: Cast, strength: float, steps: StepRange) -> Applied:
        """Applies the people of a cast, all of whom the model gets to know this way, each in their own place."""
        ...


@dataclass(frozen=True)
class AdapterBackend:
    """Tokens in cross attention, which an identity adapter makes of what encoders saw."""

    adapter: IdentityAdapter
    emphasis: LayerEmphasis = LayerEmphasis.UNIFORM

    @property
    def name(self) -> str:
        return f"adapter {self.adapter.name}"

    def knows(self, model: ModelPatcher, person: Identity) -> bool:
        return person.num_photos > 0

    def apply(self, to: Applied, *, cast: Cast, strength: float, steps: StepRange) -> Applied:
        return apply_cast(*to, adapter=self.adapter, cast=cast, strength=strength, steps=steps, emphasis=self.emphasis)


@dataclass(frozen=True, eq=False)
class LoraBackend:
    """A LoRA that was trained on the person, for the base that it was trained on. It reads each file once."""

    name: str = "LoRA"
    read: dict[tuple[int, PersonLora], dict[Any, Any]] = field(default_factory=lambda: {}, repr=False)

    def patches(self, model: ModelPatcher, lora: PersonLora) -> dict[Any, Any]:
        """Returns what a LoRA changes in a model, as `lora_patches` does."""
        if (key := (id(model.model), lora)) not in self.read:
            self.read[key] = lora_patches(model, lora)
        return self.read[key]

    def knows(self, model: ModelPatcher, person: Identity) -> bool:
        return person.lora is not None and bool(self.patches(model, person.lora))

    def apply(self, to: Applied, *, cast: Cast, strength: float, steps: StepRange) -> Applied:
        return apply_loras(*to, cast=cast, strength=strength, steps=steps, patches=self.patches)


@dataclass(frozen=True)
class ReferenceBackend:
    """Pictures as reference latents, which edit models read."""

    vae: VAE
    name: str = "reference pictures"

    def knows(self, model: ModelPatcher, person: Identity) -> bool:
        return bool(person.pictures) and reading_family(model) is not None

    def apply(self, to: Applied, *, cast: Cast, strength: float, steps: StepRange) -> Applied:
        return apply_references(*to, cast=cast, vae=self.vae, strength=strength, steps=steps)


@dataclass(frozen=True)
class WordsBackend:
    """Words in the person's place, which every model understands."""

    clip: CLIP
    name: str = "words"

    def knows(self, model: ModelPatcher, person: Identity) -> bool:
        return bool(person.prompt)

    def apply(self, to: Applied, *, cast: Cast, strength: float, steps: StepRange) -> Applied:
        model, positive, negative = to
        return model, say_words(positive, clip=self.clip, cast=cast, strength=strength, steps=steps), negative


def connected_backends(
    adapter: IdentityAdapter | None,
    vae: VAE | None,
    clip: CLIP | None,
    *,
    emphasis: LayerEmphasis = LayerEmphasis.UNIFORM,
) -> tuple[IdentityBackend, ...]:
    """Returns the ways in which people can be made known with what is connected, the most specific first."""
    return (
        *((AdapterBackend(adapter, emphasis),) if adapter else ()),
        LoraBackend(),
        *((ReferenceBackend(vae),) if vae else ()),
        *((WordsBackend(clip),) if clip else ()),
    )


def backends_of(
    model: ModelPatcher, person: Identity, backends: Sequence[IdentityBackend]
) -> tuple[IdentityBackend, ...]:
    """Returns by what a model gets to know a person: the first way that can, and words if one of them can."""
    known = [backend for backend in backends if backend.knows(model, person)]
    return tuple(backend for backend in known if backend is known[0] or isinstance(backend, WordsBackend))


def refuse_stranger(model: ModelPatcher, person: Identity) -> NoReturn:
    """Raises UnsupportedModeError, which says what would let a model know a person."""
    raise UnsupportedModeError(
        f"{_remedy(person)}: this model ({type(model.model).__name__}) cannot be told otherwise who '{person.name}' is"
    )


def apply_people(
    to: Applied,
    *,
    cast: Cast,
    backends: Sequence[IdentityBackend],
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> tuple[Applied, str]:
    """Makes each person of a cast known to a model by the first backend that can, and by words if one of them can.

    People whose regions overlap share them with those who are known by the same backend.

    Args:
        to: a model and its prompts.
        cast: the people and their places; a member with strength 0 is absent.
        backends: in the order of preference.
        strength: factor on every member's strength.
        steps: the part of the schedule in which the people act.
    Returns:
        The model and its prompts with the people, and what was chosen for whom, one line each.
    Raises:
        UnsupportedModeError: no backend can make a person known; nothing is patched.
    """
    model = to[0]
    people = [replace(member, number=number) for number, member in zip(cast.numbers, cast.members, strict=True)]
    used = [backends_of(model, member.identity, backends) for member in people]
    for member, mine in zip(people, used, strict=True):
        if not mine:
            refuse_stranger(model, member.identity)
    for backend in backends:
        members = tuple(member for member, mine in zip(people, used, strict=True) if backend in mine)
        if members:
            to = backend.apply(to, cast=replace(cast, members=members), strength=strength, steps=steps)
    lines = [
        f"#{member.number} {member.identity.name}: {', '.join(backend.name for backend in mine)}"
        for member, mine in zip(people, used, strict=True)
    ]
    return to, "\n".join(lines)


def _remedy(person: Identity) -> str:
    """Returns what would let a model know a person, by what is known of them."""
    remedies = {
        "connect an identity adapter (SD1.5, SDXL)": person.num_photos,
        "use the base that the LoRA was trained on": person.lora,
        "connect vae, and use a model that reads reference pictures (FLUX, FLUX.2, Qwen-Image)": person.pictures,
        "connect clip, to say the description": person.prompt,
    }
    return ", or ".join(remedy for remedy, is_known in remedies.items() if is_known)
