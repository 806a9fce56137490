"""Encodes a cast for the conditionings: the tokens of everyone who acts."""

from __future__ import annotations

import math
from dataclasses import replace
from hashlib import sha256

from torch import Tensor

from ...errors import InvalidInputError
from ...identity.adapters import IdentityAdapter, stack_tokens
from ...identity.cast import Cast, CastMember
from ...identity.regions import Region
from .conditioning import EncodedCast


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
    acting: dict[tuple[bytes, str, float], tuple[int, CastMember, Tensor]] = {}
    for number, member in enumerate(cast.members, start=1):
        if strength and member.strength:
            tokens = adapter.tokens(member.identity)
            if not tokens.isfinite().all():
                raise InvalidInputError(
                    f"the tokens that '{adapter.name}' makes for '{member.identity.name}' are not finite; the "
                    "adapter's file is probably damaged: download it again"
                )
            acting.setdefault(_fingerprint(member, tokens), (number, member, tokens))
    if not acting:
        return None
    numbers, members, tokens = zip(*(acting[key] for key in sorted(acting)), strict=True)
    null_tokens = [adapter.null_tokens(member.identity) for member in members]
    positive = EncodedCast(
        tokens=stack_tokens(tokens), cast=replace(cast, members=members), numbers=numbers, strength=strength
    )
    return positive, replace(positive, tokens=stack_tokens(null_tokens))


def _fingerprint(member: CastMember, tokens: Tensor) -> tuple[bytes, str, float]:
    region = "" if member.region is None else _region_fingerprint(member.region)
    return sha256(tokens.contiguous().numpy().tobytes()).digest(), region, member.strength


def _region_fingerprint(region: Region) -> str:
    mask = "" if region.mask is None else sha256(region.mask.contiguous().numpy().tobytes()).hexdigest()
    shape = () if region.mask is None else tuple(region.mask.shape)
    return f"{region.box} {region.feather} {shape} {mask}"
