"""The branch that the pack's own trainer trained on the small world does what it is for, on people it never saw."""

import comfy.sample
import numpy as np
import pytest
import torch
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from fpga.laboratory.generation_lab import shipped_way
from fpga.laboratory.laboratory import NEGATIVE, Laboratory, Way
from fpga.laboratory.scenes import Shot

NUM_CASES = 6


@pytest.fixture(scope="module")
def lab():
    return Laboratory()


@pytest.fixture(scope="module")
def cases(lab):
    return lab.cases(Shot.HALF, NUM_CASES)


@pytest.fixture(scope="module")
def shipped():
    return shipped_way()


@pytest.fixture(scope="module")
def figures(lab, cases, shipped):
    """Mean measures of pictures with and without the branch, from the same noise."""
    ways = {"trained": shipped, "base": Way()}
    measured = {
        name: [lab.measure(case, picture) for case, picture in zip(cases, lab.generate(way, cases), strict=True)]
        for name, way in ways.items()
    }
    return {
        name: {key: np.mean([row[key] for row in rows]) for key in ("FaceSim", "pose error")}
        for name, rows in measured.items()
    }


def test_the_adapter_was_trained_with_the_branch_beside_it(shipped):
    assert shipped.adapter.branch_hash == shipped.branch.header.branch_hash
    assert set(shipped.branch.header.conditions) == {"landmarks", "skeleton"}


def test_people_are_more_alike_than_without_the_branch(figures):
    assert figures["trained"]["FaceSim"] > figures["base"]["FaceSim"] + 0.2


def test_poses_are_closer_to_what_was_asked_for(figures):
    assert figures["trained"]["pose error"] < 0.5 * figures["base"]["pose error"]


def test_folded_is_live_on_the_trained_branch(lab, cases, shipped):
    latents = {}
    for mode in (BranchMode.FOLDED, BranchMode.LIVE):
        texts = lab.encode(cases[0].scene.caption), lab.encode(NEGATIVE)
        applied = apply_repcontrolnet(
            lab.model,
            *texts,
            branch=shipped.branch,
            image=cases[0].condition(),
            settings=RepControlNetSettings(mode=mode),
        )
        conditioned = apply_cast(
            applied.model, applied.positive, applied.negative, adapter=shipped.adapter, cast=cases[0].cast
        )
        latents[mode] = sample(*conditioned)
    folded, live = latents.values()
    assert (folded - live).norm() / live.norm() < 1e-4


def sample(model, positive, negative):
    latent = torch.zeros(1, 4, 16, 16)
    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latent, 0),
        8,
        2.5,
        "ddim",
        "normal",
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=0,
    )
