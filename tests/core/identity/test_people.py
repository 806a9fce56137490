"""What an adapter makes of people: once per person, everyone at once, and as if they were alone."""

from dataclasses import replace

import pytest
import torch
from fpga.fpga_core.identity.people import stack_people
from fpga.fpga_core.identity.resampler import Perceiver
from random_adapters import (
    ANTELOPEV2,
    BUFFALO_L,
    faceid,
    faceid_plus,
    faceid_portrait,
    instantid,
    plus_face,
    random_identity,
    read_adapter,
)

BUILDS = (faceid, faceid_plus, faceid_portrait, plus_face, instantid)


def people(build, counts=(1, 3, 1)):
    recogniser = ANTELOPEV2 if build is instantid else BUFFALO_L
    clip = {"vision": 48} if build in (faceid_plus, plus_face) else {}
    return [
        random_identity(str(seed), seed, num_photos, recognisers=(recogniser,), clip=clip)
        for seed, num_photos in enumerate(counts)
    ]


@pytest.mark.parametrize("build", BUILDS)
def test_people_come_out_as_if_they_were_alone(build):
    adapter, identities = read_adapter(build("tiny")), people(build)
    together = replace(adapter).encode(identities)
    alone = [replace(adapter).encode([identity]) for identity in identities]
    for side in (0, 1):
        for whole, single in zip(together[side], (one[side][0] for one in alone), strict=True):
            torch.testing.assert_close(whole.tokens, single.tokens, rtol=1e-5, atol=1e-5)
            for slot, pair in whole.projected.items():
                torch.testing.assert_close(tuple(pair), tuple(single.projected[slot]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", BUILDS)
def test_the_own_projections_are_applied_to_the_tokens(build):
    adapter, identities = read_adapter(build("tiny")), people(build, (1, 1))
    for side in adapter.encode(identities):
        stacked = stack_people(side)
        assert stacked.projected.keys() == adapter.projections.keys()
        for slot, (key, value) in stacked.projected.items():
            torch.testing.assert_close(key, stacked.tokens @ adapter.projections[slot].key.T)
            torch.testing.assert_close(value, stacked.tokens @ adapter.projections[slot].value.T)


def test_the_resampler_runs_once_for_everyone_and_once_for_nobody(monkeypatch):
    sizes, resample = [], Perceiver.resample

    def counted(self, latents, features):
        sizes.append(len(latents))
        return resample(self, latents, features)

    monkeypatch.setattr(Perceiver, "resample", counted)
    adapter, identities = read_adapter(faceid_plus("tiny")), people(faceid_plus, (1, 1, 1))
    nothing = identities[0].clip_null  # one CLIP-Vision model has one picture of nobody
    identities = [replace(identity, clip_null=nothing) for identity in identities]
    first = adapter.encode(identities)
    assert sizes == [3, 1]
    again = adapter.encode(identities[::-1])
    assert sizes == [3, 1]
    assert [person.tokens is kept.tokens for person, kept in zip(again[0][::-1], first[0], strict=True)] == [True] * 3
    newcomer = replace(random_identity("new", 9, clip={"vision": 48}), clip_null=nothing)
    adapter.encode([*identities, newcomer])
    assert sizes == [3, 1, 1]
