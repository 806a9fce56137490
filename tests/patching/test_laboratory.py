"""The laboratory's ways to restore: a batch is what each picture would be alone, and rows differ in what they say."""

from dataclasses import replace

import pytest
import torch
from fpga.fpga_core.restoration.settings import InversionSettings
from fpga.laboratory import restoration_lab
from fpga.laboratory.attention_lab import recorded
from fpga.laboratory.restoration_lab import Plan, RestorationLab, by_detector
from fpga.laboratory.scenes import Shot

STEPS = 3


@pytest.fixture(scope="module")
def lab():
    with torch.inference_mode():
        yield RestorationLab()


@pytest.fixture(scope="module")
def broken(lab):
    return [lab.broken(case) for case in lab.lab.cases(Shot.FULL, 3)]


@pytest.fixture
def plan():
    plan = Plan()
    return replace(plan, settings=replace(plan.settings, steps=STEPS))


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one.image, other.image, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_pictures_are_restored_together_as_each_alone_with_its_own_prompt_and_person(lab, broken, plan):
    together = lab.restore(broken, plan)
    assert_same(together, [lab.restore([one], plan)[0] for one in broken])
    for one, after in zip(broken, together, strict=True):
        assert torch.equal(after.image[0][after.changed == 0], one.picture[0][after.changed == 0])
        assert not torch.equal(after.image, one.picture)


@torch.inference_mode()
def test_the_parts_put_together_here_restore_as_restore_faces_does(lab, broken, plan):
    """Fresh noise of strength 0 is the inverted noise: what inpainting and fresh noise share with DIIR is the same."""
    assert_same(lab.restore_from_noise(broken, plan, strength=0.0), lab.restore(broken, plan))
    fresh = lab.restore_from_noise(broken, plan)
    assert all((a.image - b.image).abs().max() > 0.05 for a, b in zip(fresh, lab.restore(broken, plan), strict=True))


@torch.inference_mode()
def test_inpainting_changes_what_diir_changes(lab, broken, plan):
    for ours, theirs in zip(lab.restore(broken, plan), lab.inpaint(broken, plan, denoise=1.0), strict=True):
        assert torch.equal(ours.changed, theirs.changed)


@torch.inference_mode()
def test_a_user_knows_only_the_picture(lab, broken, plan):
    """Another exact face changes nothing for the detector, and a picture without a face stays as it is."""
    found, matches = by_detector(lab.lab, broken[0])
    moved = replace(broken[0], face=broken[1].face)
    assert by_detector(lab.lab, moved)[0].faces[0].box == found.faces[0].box and any(matches)
    blank = replace(broken[0], picture=torch.zeros_like(broken[0].picture))
    (after,) = lab.restore([blank], replace(plan, find=by_detector))
    assert torch.equal(after.image, blank.picture) and not after.changed.any()


@torch.inference_mode()
def test_the_border_measures_a_step_that_is_not_in_the_true_picture(lab, broken):
    one = broken[0]
    inner, outer = one.border
    changed = lab.restore([one], Plan(settings=replace(Plan().settings, steps=1)))[0].changed
    assert (changed[outer[:, 1], outer[:, 0]] == 0).all() and (changed[inner[:, 1], inner[:, 0]] > 0.99).all()
    shifted = one.true + 0.1 * changed[None, :, :, None]
    assert lab.measure(one, one.true)[restoration_lab.BORDER] == 0
    assert lab.measure(one, shifted)[restoration_lab.BORDER] == pytest.approx(0.1, abs=0.02)


def test_inversions_of_the_laboratory_are_those_of_the_pack():
    assert replace(Plan().settings.inversion, repetitions=InversionSettings().repetitions) == InversionSettings()


class Layer(torch.nn.Module):
    """A cross attention with one head, as the host builds it."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (torch.nn.Linear(8, 8, bias=False) for _ in range(3))
        self.heads = 1

    def forward(self, x, text):
        q, k, v = self.to_q(x), self.to_k(text), self.to_v(text)
        return (q @ k.mT / 8**0.5).softmax(-1) @ v


def test_an_identity_that_is_the_text_is_as_active_as_the_text():
    torch.manual_seed(0)
    layer, text, x = Layer(), torch.randn(1, 4, 8), torch.randn(1, 6, 8)
    for tokens, expected in ((text, 1.0), (text * 0, 0.0)):
        with recorded(layer, tokens) as record:
            layer(x, text)
            layer(x, text)
        assert len(record.maps) == 2
        torch.testing.assert_close(record.maps[0], torch.full((6,), expected))
    assert not layer.to_q._forward_hooks and not layer.to_v._forward_hooks
