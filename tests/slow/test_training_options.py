"""Each option of the trainer: a stopped training goes on as if it had not stopped, and the option does what it says."""

import sys

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, MissingPackageError, ResumeMismatchError
from fpga.fpga_core.training.engine.loop import Hooks
from fpga.fpga_core.training.engine.optimizers import OptimizerKind
from fpga.fpga_core.training.engine.order import derive_seed, split_held_out, validation_generator
from fpga.fpga_core.training.engine.processes import TRACKED, Tracker, report_to_tracker, start_processes
from fpga.fpga_core.training.engine.saved_states import newest_state, read_state
from fpga.fpga_core.training.engine.settings import Precision, Schedule
from toy_training import ToyBatches, ToyModel, assert_same_training, run_toy

IN_8_BITS = {"optimizer": OptimizerKind.EIGHT_BIT, "width": 1100, "learning_rate": 0.01}
"""bitsandbytes keeps parameters of fewer than 4096 numbers in 32 bits."""

OPTIONS = {
    "cosine": {"schedule": Schedule.COSINE, "warmup": 2},
    "linear": {"schedule": Schedule.LINEAR},
    "rates": {"rates": (("mix", 0.02),), "new_layers_factor": 3.0},
    "fused": {"optimizer": OptimizerKind.FUSED},
    "8 bits": IN_8_BITS,
    "average on the CPU": {"is_average_on_cpu": True, "ema_decay": 0.5},
    "validation": {"held_out": 2, "validate_every": 2},
    "in the background": {"saves_in_background": True, "checkpoint_every": 1},
    "by the clock": {"checkpoint_minutes": 1e-6},
}
OPTIONS["all"] = {name: value for options in OPTIONS.values() for name, value in options.items()}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, options):
    settings = {"iterations": 7, "learning_rate": 0.01, **options}
    run_toy(tmp_path / "whole", **settings)
    done = []
    stopping = Hooks(done.append, should_stop=lambda: len(done) == 3)
    assert run_toy(tmp_path / "stopped", stopping, **settings).iterations == 4
    run_toy(tmp_path / "stopped", **settings)
    assert_same_training(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("options", [{}, {"optimizer": OptimizerKind.ADAMW, "schedule": Schedule.CONSTANT}])
def test_a_state_names_no_option_that_is_not_used(tmp_path, options):
    """So that trainings that began before there were these options go on."""
    run_toy(tmp_path, iterations=1, **options)
    assert not {"schedule", "rates", "optimizer", "held_out"} & read_state(newest_state(tmp_path)).settings.keys()


def test_the_optimizers_agree_on_where_to_go(tmp_path):
    """Fused is the same to rounding; 8 bits go the same way."""
    given, found = ToyModel(width=1100), {}
    for kind in OptimizerKind:
        run_toy(tmp_path / kind, iterations=9, **{**IN_8_BITS, "optimizer": kind})
        found[kind] = read_state(newest_state(tmp_path / kind))
    plain, fused, small = (found[kind].parameters["mix"] for kind in OptimizerKind)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    moved = [(mix - given.mix.detach()).flatten() for mix in (plain, small)]
    assert not torch.equal(plain, small) and torch.cosine_similarity(*moved, dim=0) > 0.98
    moments = found[OptimizerKind.EIGHT_BIT].optimizer["state"][0]["__bnb_optimizer_quant_state__"]
    assert moments["state1"].dtype == moments["state2"].dtype == torch.uint8


def test_without_bitsandbytes_the_command_to_install_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim.adamw", None)
    with pytest.raises(MissingPackageError, match="-m pip install bitsandbytes"):
        run_toy(tmp_path, optimizer=OptimizerKind.EIGHT_BIT)


def test_the_average_on_the_cpu_is_the_average(tmp_path):
    for on_cpu in (False, True):
        run_toy(tmp_path / str(on_cpu), iterations=5, is_average_on_cpu=on_cpu)
    assert_same_training(tmp_path / "False", tmp_path / "True")


def test_a_part_has_its_own_rate(tmp_path):
    given = ToyModel()
    settings = {"iterations": 1, "learning_rate": 0.001, "ema_decay": 0.0}
    run_toy(tmp_path / "a", rates=(("mix", 0.01),), **settings)
    learnt = read_state(newest_state(tmp_path / "a")).parameters
    for name, rate in (("mix", 0.01), ("out", 0.001)):  # Adam's first step is as long as its rate
        assert float((learnt[name] - getattr(given, name).detach()).abs().max()) == pytest.approx(rate, rel=1e-3)
    with pytest.raises(InvalidInputError, match="'branch', but the parts are: mix, out"):
        run_toy(tmp_path / "b", rates=(("branch", 0.01),), **settings)


def test_a_schedule_cannot_be_lengthened(tmp_path):
    run_toy(tmp_path, iterations=4, schedule=Schedule.COSINE)
    with pytest.raises(ResumeMismatchError, match="iterations was 4 and is now 6"):
        run_toy(tmp_path, iterations=6, schedule=Schedule.COSINE)


def test_the_validation_is_of_the_average_on_samples_that_are_not_trained_on(tmp_path, monkeypatch):
    """Computed again from the saved states, with the documented draws."""
    seen, batch = [], ToyBatches.batch
    monkeypatch.setattr(ToyBatches, "batch", lambda self, indices: seen.append(list(indices)) or batch(self, indices))
    settings = {"iterations": 6, "checkpoint_every": 2, "num_checkpoints": 9}
    outcome = run_toy(tmp_path, held_out=3, validate_every=2, dropout=0.0, **settings)
    trained_on, held_out = split_held_out(7, 3, seed=0)
    assert sorted([*trained_on, *held_out]) == list(range(7))
    groups = [held_out[:2], held_out[2:]]
    assert [indices for indices in seen if set(indices) & set(held_out)] == 3 * groups
    assert ["validation" in line for line in outcome.losses] == [False, True] * 3
    for iteration in (2, 4, 6):
        model = ToyModel(dropout=0.0)
        model.load_state_dict(read_state(tmp_path / f"checkpoint-{iteration:08}.pt").average)
        losses = [
            len(group) * model(batch(ToyBatches(), group), iteration, validation_generator(0, number))["loss"].item()
            for number, group in enumerate(groups)
        ]
        assert outcome.losses[iteration - 1]["validation"] == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_validation_changes_nothing_else(tmp_path):
    settings = {"iterations": 6, "held_out": 2}
    plain = run_toy(tmp_path / "plain", **settings)
    validated = run_toy(tmp_path / "validated", validate_every=2, **settings)
    without = [{name: line[name] for name in line if name != "validation"} for line in validated.losses]
    assert without == list(plain.losses)


def test_too_many_held_out_are_named(tmp_path):
    with pytest.raises(InvalidInputError, match="7 samples are to be held out, but the set has 7"):
        run_toy(tmp_path, held_out=7)
    assert derive_seed("held out", 0) != derive_seed("held out", 1)


def test_tensorboard_shows_every_iteration_once(tmp_path):
    """Of a training that was stopped between two saved states, too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"iterations": 6, "checkpoint_every": 2, "held_out": 2, "validate_every": 2}
    accelerators = []

    def tracked():
        accelerators.append(start_processes(Precision.FLOAT32, True, tracker=Tracker.TENSORBOARD, folder=tmp_path))
        return Hooks(lambda line: broken(line) or report_to_tracker(accelerators[-1], line))

    def broken(line):
        if line["iteration"] == 3 and len(accelerators) == 1:
            report_to_tracker(accelerators[-1], line)
            accelerators[-1].end_training()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path, tracked(), **{**settings, "checkpoint_every": 3})
    outcome = run_toy(tmp_path, tracked(), **{**settings, "checkpoint_every": 3})
    accelerators[-1].end_training()
    shown = EventAccumulator(str(tmp_path / TRACKED)).Reload()
    for name in ("loss", "validation", "learning_rate", "even"):
        expected = [(line["iteration"], line[name]) for line in outcome.losses if name in line]
        found = [(event.step, event.value) for event in shown.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        torch.testing.assert_close([value for _, value in found], [value for _, value in expected])


def test_without_tensorboard_the_command_to_install_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match="-m pip install tensorboard"):
        start_processes(Precision.FLOAT32, True, tracker=Tracker.TENSORBOARD, folder=tmp_path)
