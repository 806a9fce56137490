"""Which steps of a run are full, and whose features the others get."""

import pytest
import torch
from fpga.fpga_core.acceleration.deepcache import DeepCacheRun, DeepCacheSettings
from fpga.fpga_core.errors import InvalidInputError

X = torch.zeros(2, 4, 8, 8)


def run(interval: int = 3) -> DeepCacheRun:
    return DeepCacheRun(DeepCacheSettings(interval=interval))


def fullness(sigmas: list[float], interval: int, active: range | None = None) -> list[bool]:
    one, seen = run(interval), []
    for number, sigma in enumerate(sigmas):
        one.begin_evaluation(sigma, is_active=active is None or number in active)
        seen.append(one.is_full)
    return seen


def test_every_so_many_steps_are_full():
    assert fullness([9, 8, 7, 6, 5, 4, 3], 3) == [True, False, False, True, False, False, True]
    assert fullness([9, 8, 7], 1) == [True] * 3


def test_evaluations_at_the_same_sigma_are_one_step():
    """Heun evaluates each noise level twice."""
    assert fullness([9, 8, 8, 7, 7, 6, 6, 5], 3) == [True, False, False, False, False, True, True, False]


def test_steps_outside_of_the_range_are_full_and_the_first_inside_is():
    assert fullness([9, 8, 7, 6, 5, 4, 3], 3, active=range(1, 5)) == [True, True, False, False, True, True, True]


def test_features_belong_to_prompts_and_not_to_places_in_a_batch():
    one, feature = run(), torch.arange(2.0)[:, None, None, None].expand(2, 3, 4, 4)
    one.begin_evaluation(9, is_active=True)
    one.keep(one.keys(["uncond", "cond"]), X, feature)
    one.begin_evaluation(8, is_active=True)
    assert torch.equal(one.feature(one.keys(["cond"]), X[:1]), feature[1:])  # alone
    one.begin_evaluation(7, is_active=True)
    assert torch.equal(one.feature(one.keys(["cond", "uncond"]), X), feature.flip(0))  # in another order


def test_calls_of_one_evaluation_with_the_same_prompt_are_told_apart():
    """Tiles and windows show the same prompt several times."""
    one = run()
    one.begin_evaluation(9, is_active=True)
    for tile in range(3):
        one.keep(one.keys(["cond"]), X, torch.full((2, 1, 1, 1), float(tile)))
    one.begin_evaluation(8, is_active=True)
    assert [float(one.feature(one.keys(["cond"]), X)[0]) for _ in range(3)] == [0, 1, 2]
    assert one.feature(one.keys(["cond"]), X) is None  # a fourth is new


@pytest.mark.parametrize(
    ("prompts", "x"), [(["new"], X), (["cond", "new"], X), (["cond"], X[..., :4]), (["cond"], X[:1])]
)
def test_a_call_without_a_kept_feature_is_full(prompts, x):
    one = run()
    one.begin_evaluation(9, is_active=True)
    one.keep(one.keys(["cond"]), X, torch.zeros(2, 1, 1, 1))
    one.begin_evaluation(8, is_active=True)
    assert one.feature(one.keys(prompts), x) is None


def test_features_do_not_outlive_the_next_full_step():
    """A prompt that rests for a while does not get what it left long ago."""
    one = run(2)
    one.begin_evaluation(9, is_active=True)
    one.keep(one.keys(["early"]), X, torch.zeros(2, 1, 1, 1))
    for sigma in (8, 7, 6):
        one.begin_evaluation(sigma, is_active=True)
    assert not one.is_full and one.feature(one.keys(["early"]), X) is None


def test_what_is_given_can_be_written_into():
    one = run()
    one.begin_evaluation(9, is_active=True)
    one.keep(one.keys(["cond"]), X, torch.zeros(2, 1, 1, 1))
    for sigma in (8, 7):
        one.begin_evaluation(sigma, is_active=True)
        given = one.feature(one.keys(["cond"]), X)
        assert not given.any()
        given += 1


@pytest.mark.parametrize("settings", [{"interval": 0}, {"branch": -1}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(InvalidInputError, match="must be at least"):
        DeepCacheSettings(**settings)
