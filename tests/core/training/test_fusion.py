"""The stages of training, the condition images they show, and what is dropped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from fpga.fpga_core.faces.face import Body, Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.method.fusion import Drops, MultiModeFusion, Shown, condition_image
from training_batches import tiny_batch


def test_the_stages_follow_one_another():
    fusion = MultiModeFusion(2, 3, 4)
    shown = [fusion.shown_at(iteration).value for iteration in range(12)]
    assert shown == ["landmarks"] * 2 + ["skeleton"] * 3 + ["both"] * 7
    assert fusion.num_iterations == 9


def test_the_papers_lengths_are_the_defaults():
    fusion = MultiModeFusion()
    ends = [(49_999, "landmarks"), (50_000, "skeleton"), (149_999, "skeleton"), (150_000, "both"), (1_149_999, "both")]
    assert [fusion.shown_at(iteration).value for iteration, _ in ends] == [name for _, name in ends]
    cloned = [iteration for iteration in range(149_000, 150_031) if fusion.clones_at(iteration)]
    assert cloned == [150_009, 150_019, 150_029]


def test_clones_are_made_in_the_last_stage_only_and_past_its_end():
    fusion = MultiModeFusion(3, 0, 5, clone_every=2)
    assert [iteration for iteration in range(11) if fusion.clones_at(iteration)] == [4, 6, 8, 10]
    assert not any(MultiModeFusion(0, 0, 9, clone_every=0).clones_at(iteration) for iteration in range(30))
    assert not any(MultiModeFusion(4, 4, 0).clones_at(iteration) for iteration in range(30))


@pytest.mark.parametrize(
    "lengths, conditions",
    [((5, 0, 0), ("landmarks",)), ((0, 5, 0), ("skeleton",)), ((0, 0, 5), ("skeleton", "landmarks"))],
)
def test_the_last_stage_that_there_is_goes_on(lengths, conditions):
    fusion = MultiModeFusion(*lengths)
    assert fusion.shown_at(4) == fusion.shown_at(400)
    assert fusion.conditions == conditions


@pytest.mark.parametrize(("lengths", "clone_every"), [((0, 0, 0), 10), ((-1, 0, 5), 10), ((1, 1, 1), -2)])
def test_impossible_stages_are_refused(lengths, clone_every):
    with pytest.raises(InvalidInputError, match="stages of training"):
        MultiModeFusion(*lengths, clone_every=clone_every)


@pytest.mark.parametrize("style", [FaceStyle.OPENPOSE, FaceStyle.INSTANTID])
def test_both_in_one_picture_is_what_draw_landmarks_draws(style):
    rng = np.random.default_rng(3)
    points = rng.uniform(30, 98, (68, 2)).astype(np.float32)
    keypoints = np.concatenate([rng.uniform(5, 123, (18, 2)), np.ones((18, 1))], axis=1).astype(np.float32)
    face = Face(Box(30.0, 30.0, 98.0, 98.0), 1.0, landmarks=points)
    picture = PictureFaces(Extent(128, 128), (face,), (Body(keypoints),))
    drawn = {
        parts: draw_conditions([picture], parts, style).movedim(-1, 1)
        for parts in (DrawnParts.BODY, DrawnParts.FACE, DrawnParts.FACE_AND_BODY)
    }
    batch = replace(tiny_batch(1), skeleton=drawn[DrawnParts.BODY], landmarks=drawn[DrawnParts.FACE])
    assert torch.equal(condition_image(batch, Shown.SKELETON), batch.skeleton)
    assert torch.equal(condition_image(batch, Shown.LANDMARKS), batch.landmarks)
    difference = (condition_image(batch, Shown.BOTH) - drawn[DrawnParts.FACE_AND_BODY]).abs()
    assert difference.mean() < (1e-6 if style is FaceStyle.OPENPOSE else 2e-3)  # InstantID's spokes are darkened


def test_drops_happen_as_often_as_they_should():
    text, identity = Drops(0.1, 0.1).draw(200_000, torch.Generator().manual_seed(0))
    assert text.float().mean() == pytest.approx(0.1, abs=0.003)
    assert identity.float().mean() == pytest.approx(0.1, abs=0.003)
    assert (text & identity).float().mean() == pytest.approx(0.05, abs=0.002)
    text, identity = Drops(0.0, 0.5).draw(1000, torch.Generator().manual_seed(0))
    assert not text.any() and identity.float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("shares", [(-0.1, 0), (0, 0.6), (float("nan"), 0)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(InvalidInputError, match="between 0 and 0.5"):
        Drops(*shares)


def test_single_drawings_are_shown_as_often_as_asked_for_and_in_the_last_stage_only():
    fusion = MultiModeFusion(2, 2, 4, single_share=0.25)
    left_out = fusion.left_out_at(4, 4000, torch.Generator().manual_seed(0))
    assert left_out.float().mean(dim=0).tolist() == pytest.approx([0.25, 0.25], abs=0.03)
    assert not left_out.all(dim=1).any()
    generator = torch.Generator().manual_seed(0)
    assert fusion.left_out_at(3, 4, generator) is None
    assert MultiModeFusion(2, 2, 4).left_out_at(4, 4, generator) is None
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())  # nothing was drawn


def test_what_is_left_out_is_not_in_the_condition_image():
    batch = tiny_batch(3)
    left_out = torch.tensor([[False, False], [True, False], [False, True]])
    shown = condition_image(batch, Shown.BOTH, left_out)
    assert torch.equal(shown[0], condition_image(batch, Shown.BOTH)[0])
    assert torch.equal(shown[1], batch.landmarks[1])
    assert torch.equal(shown[2], batch.skeleton[2])


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_an_impossible_share_of_single_drawings_is_refused(share):
    with pytest.raises(InvalidInputError, match="alone would each be shown"):
        MultiModeFusion(1, 1, 1, single_share=share)
