"""Encodes a cast for the conditionings: the tokens of everyone who acts, and what the adapter's layers make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import comfy.model_management
from torch import Tensor

from ...errors import InvalidInputError
from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast, CastMember
from ...identity.identity import Identity
from ...identity.people import EncodedPeople, stack_people
from ...identity.regions import Region
from .conditioning import EncodedCast


def encode_people(
    adapter: IdentityAdapter, identities: Sequence[Identity]
) -> tuple[list[EncodedPeople], list[EncodedPeople]]:
    """Makes what the positive and the negative carry of people, on the host's device.

    The host frees the memory that this takes. Nothing of the adapter stays on the device.

    Raises:
        InvalidInputError: an identity does not hold what the adapter reads, or its tokens are not finite.
    """
    device = comfy.model_management.get_torch_device()
    if not adapter.is_encoded(identities):
        comfy.model_management.free_memory(adapter.num_bytes, device)
    positive, negative = adapter.encode(identities, device)
    for identity, person in zip(identities, positive, strict=True):
        if not person.tokens.isfinite().all():
            raise InvalidInputError(
                f"the tokens that '{adapter.name}' makes for '{identity.name}' are not finite; the adapter's file is "
                "probably damaged: download it again"
            )
    return positive, negative


def encode_cast(adapter: IdentityAdapter, cast: Cast, strength: float) -> tuple[EncodedCast, EncodedCast] | None:
    """Makes the tokens of everyone who acts, in an order that does not depend on that of the cast.

    Sums of floating-point numbers depend on their order. With a canonical order, permuting the cast does not change a
    bit. A member that is listed twice with the same region and strength counts once.

    Returns:
        The casts of the positive and the negative; None if nobody acts.
    Raises:
        InvalidInputError: an identity does not hold what the adapter reads, or strength or tokens are not finite.
    """
    if not math.isfinite(strength):
        raise InvalidInputError(f"strength is {strength}; it must be a finite number (1 is as trained)")
    numbered = [replace(member, number=number) for number, member in zip(cast.numbers, cast.members, strict=True)]
    acting = [member for member in numbered if strength and member.strength]
    if not acting:
        return None
    people = zip(acting, *encode_people(adapter, [member.identity for member in acting]), strict=True)
    ordered: dict[tuple[bytes, str, float], tuple[CastMember, EncodedPeople, EncodedPeople]] = {}
    for member, person, nobody in people:
        ordered.setdefault(_fingerprint(member, person.tokens), (member, person, nobody))
    members, positive, negative = zip(*(ordered[key] for key in sorted(ordered)), strict=True)
    in_order = replace(cast, members=members)
    for_positive, for_negative = (
        EncodedCast(tokens=side.tokens, projected=side.projected, cast=in_order, strength=strength)
        for side in map(stack_people, (positive, negative))
    )
    return for_positive, for_negative


def _fingerprint(member: CastMember, tokens: Tensor) -> tuple[bytes, str, float]:
    region = "" if member.region is None else _region_fingerprint(member.region)
    return sha256(tokens.contiguous().numpy().tobytes()).digest(), region, member.strength


def _region_fingerprint(region: Region) -> str:
    mask = "" if region.mask is None else sha256(region.mask.contiguous().numpy().tobytes()).hexdigest()
    shape = () if region.mask is None else tuple(region.mask.shape)
    return f"{region.box} {region.feather} {shape} {mask}"
