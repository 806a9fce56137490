"""People by words, which a prompt says in each person's place only."""

from __future__ import annotations

from comfy.sd import CLIP

from ...identity.cast import Cast
from ..conditioning import Conditioning
from ..schedule import StepRange

CONFINED_BY = frozenset({"area", "mask", "strength", "set_area_to_bounds", "pooled_output"})
"""Entries of a prompt that its copies in people's places have of their own, or do without."""


def say_words(
    positive: Conditioning,
    *,
    clip: CLIP,
    cast: Cast,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> Conditioning:
    """Adds the words of each person to a prompt, confined to their region by the host's masks.

    The prompt itself goes on everywhere; where a person is, the host takes the mean of both predictions. Each person
    adds a row to the batch of every step.

    Args:
        positive: the prompt. What it carries beside its text (guidance, references, controls) goes with the words too.
        clip: the model's text encoder.
        cast: the people; those without words, or with strength 0, say nothing.
        strength: factor on every member's strength.
        steps: the part of the schedule in which the words are said.
    Returns:
        The prompt, with an entry for each person after it.
    """
    shared = {name: value for name, value in positive[0][1].items() if name not in CONFINED_BY}
    regions = cast.rasterise(cast.extent)
    said: Conditioning = []
    for member, region in zip(cast.members, regions, strict=True):
        if not member.identity.prompt or not strength * member.strength:
            continue
        for text, options in clip.encode_from_tokens_scheduled(clip.tokenize(member.identity.prompt)):
            place = {"mask": region[None], "mask_strength": strength * member.strength, "set_area_to_bounds": False}
            when = {"start_percent": steps.start_percent, "end_percent": steps.end_percent}
            said.append([text, {**shared, **options, **place, **when}])
    return [*positive, *said]
