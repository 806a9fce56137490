"""Describes a person by what encoders do not see: reference pictures, a LoRA, and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import InvalidInputError
from .identity import Identity, PersonLora


def describe_person(
    known: Identity | None = None,
    *,
    name: str = "",
    words: str = "",
    pictures: Sequence[torch.Tensor] = (),
    lora: PersonLora | None = None,
) -> Identity:
    """Returns a person with what is newly said of them.

    Args:
        known: what is known already; what is said anew takes the place of the same kind.
        name: the person's name; if it is empty, the known one stays. If nothing else is said or known, the name is how
            a prompt speaks of the person: models know many people by name.
        words: how a prompt speaks of the person.
        pictures: reference pictures, batches of (num_pictures, height, width, 3 or 4) in [0, 1].
        lora: a LoRA that was trained on the person.
    Raises:
        InvalidInputError: neither is anything said nor known, or pictures have another shape or are not finite.
    """
    name, words = name.strip() or (known.name if known else "unnamed"), words.strip()
    shown = tuple(_as_picture(picture) for batch in pictures for picture in batch)
    if known is not None:
        return replace(
            known,
            name=name,
            pictures=shown or known.pictures,
            lora=lora or known.lora,
            words=words or known.words,
        )
    if not (shown or lora or words):
        if name == "unnamed":
            raise InvalidInputError(
                "nothing is said of this person; connect pictures or an identity, choose a LoRA, or fill in "
                "description or name"
            )
        words = name
    return Identity(name, pictures=shown, lora=lora, words=words)


def _as_picture(picture: torch.Tensor) -> torch.Tensor:
    """Returns one picture without its alpha, on the CPU; (height, width, 3) float32 in [0, 1]."""
    if picture.ndim != 3 or picture.shape[-1] not in (3, 4) or 0 in picture.shape:
        raise InvalidInputError(
            f"a reference picture has the shape {tuple(picture.shape)}; connect an IMAGE of the shape (pictures, "
            "height, width, 3 or 4 channels)"
        )
    if not picture.isfinite().all():
        raise InvalidInputError(
            "a reference picture holds values that are not numbers (NaN or infinity); use another picture: the node "
            "that made this one probably divided by zero"
        )
    return picture[..., :3].detach().to("cpu", torch.float32).clamp(0, 1)
