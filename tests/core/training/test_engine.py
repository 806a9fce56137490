"""The engine: what it writes, what it refuses, and that a stopped training goes on as if it had not stopped."""

import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.errors import (
    InvalidInputError,
    MissingPackageError,
    ResumeMismatchError,
    TrainingCheckpointError,
    TrainingDivergedError,
)
from fpga.fpga_core.training.engine.loop import Hooks
from fpga.fpga_core.training.engine.loss_log import FILE, as_loss_map, read_losses
from fpga.fpga_core.training.engine.optimizers import OptimizerKind
from fpga.fpga_core.training.engine.saved_states import StateWriter, newest_state, read_state
from fpga.fpga_core.training.engine.settings import Precision, Schedule, TrainingSettings
from PIL import Image
from toy_training import ToyModel, assert_same_training, run_toy


def test_the_loss_falls_and_everything_is_written(tmp_path):
    reported = []
    outcome = run_toy(
        tmp_path,
        Hooks(reported.append, lambda iteration: Image.new("RGB", (8, 8))),
        iterations=60,
        learning_rate=0.02,
        checkpoint_every=20,
        num_checkpoints=2,
        sample_every=30,
        warmup=4,
    )
    losses = as_loss_map(outcome.losses)["loss"]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert reported == list(outcome.losses) == read_losses(tmp_path / FILE)
    assert [line["learning_rate"] for line in reported[:5]] == pytest.approx([0.004, 0.008, 0.012, 0.016, 0.02])
    assert all(("even" in line) == (line["iteration"] % 2 == 0) for line in reported)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        "checkpoint-00000040.pt",
        "checkpoint-00000060.pt",
        "losses.jsonl",
        "losses.png",
        "samples/00000030.png",
        "samples/00000060.png",
        "toy.safetensors",
    }
    assert outcome.files == (tmp_path / "toy.safetensors",) and not outcome.was_stopped
    assert read_safetensors(outcome.files[0])[1]["trained_on"] == "toy data"


def test_the_average_is_exported_and_the_formula_is_the_documented_one(tmp_path):
    settings = {"iterations": 3, "ema_decay": 0.15}
    run_toy(tmp_path, num_checkpoints=3, checkpoint_every=1, **settings)
    mean = ToyModel().mix.detach()
    for iteration in range(3):
        decay = min(0.15, (1 + iteration) / (10 + iteration))
        parameters = read_state(tmp_path / f"checkpoint-{iteration + 1:08}.pt").parameters
        mean = decay * mean + (1 - decay) * parameters["mix"]
    torch.testing.assert_close(read_safetensors(tmp_path / "toy.safetensors")[0]["mix"], mean)


def test_sigterm_saves_the_state_and_ends(tmp_path):
    settings = {"iterations": 9, "checkpoint_every": 100, "learning_rate": 0.01}

    def terminate_at_3(line):
        if line["iteration"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    outcome = run_toy(tmp_path / "stopped", Hooks(terminate_at_3), **settings)
    assert outcome.was_stopped and outcome.iterations == 5 and signal.getsignal(signal.SIGTERM) == handler
    assert read_state(newest_state(tmp_path / "stopped")).iteration == 5
    assert not (tmp_path / "stopped" / "toy.safetensors").exists()
    run_toy(tmp_path / "stopped", **settings)
    run_toy(tmp_path / "whole", **settings)
    assert_same_training(tmp_path / "whole", tmp_path / "stopped")


def test_a_caller_may_stop_and_more_iterations_may_follow(tmp_path):
    asked = []
    hooks = Hooks(should_stop=lambda: asked.append(1) or len(asked) == 4)
    outcome = run_toy(tmp_path / "a", hooks, iterations=6)
    assert outcome.was_stopped and outcome.iterations == 4 and outcome.files == ()
    assert not run_toy(tmp_path / "a", iterations=6).was_stopped
    assert run_toy(tmp_path / "a", iterations=10).iterations == 10
    run_toy(tmp_path / "b", iterations=10)
    assert_same_training(tmp_path / "a", tmp_path / "b")


def test_what_breaks_an_iteration_finds_the_state_saved(tmp_path, monkeypatch):
    """A bad sample, too little memory, the host's Cancel inside the network: all are exceptions from somewhere."""
    from toy_training import ToyBatches

    run_toy(tmp_path / "whole", iterations=6)
    batch, asked = ToyBatches.batch, []

    def breaking(self, indices):
        asked.append(indices)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return batch(self, indices)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ToyBatches, "batch", breaking)
        run_toy(tmp_path / "broken", iterations=6)
    assert read_state(newest_state(tmp_path / "broken")).iteration == 3
    run_toy(tmp_path / "broken", iterations=6)
    assert_same_training(tmp_path / "whole", tmp_path / "broken")


def test_accumulated_slots_are_one_batch(tmp_path):
    """Two micro-batches give the mean of the gradients that each gives alone."""
    from fpga.fpga_core.training.engine.order import SampleOrder, slot_generator
    from toy_training import ToyBatches

    run_toy(tmp_path, iterations=1, accumulation=2, max_grad_norm=1e9)
    norm = read_losses(tmp_path / FILE)[0]["gradient_norm"]
    model, order = ToyModel(), SampleOrder(range(7), seed=0, batch_size=2, num_slots=2)
    for slot in range(2):
        generator = slot_generator(0, 0, slot)
        torch.manual_seed(generator.initial_seed())
        (model(ToyBatches().batch(order.indices(0, slot)), 0, generator)["loss"] / 2).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    assert norm == pytest.approx(float(expected), rel=1e-6)


def test_every_epoch_has_every_sample_once_in_its_own_order():
    from fpga.fpga_core.training.engine.order import SampleOrder

    order = SampleOrder(range(7), seed=3, batch_size=2, num_slots=2)
    positions = [index for iteration in range(7) for slot in range(2) for index in order.indices(iteration, slot)]
    epochs = [positions[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert (
        SampleOrder(range(7), seed=3, batch_size=2, num_slots=2).indices(5, 1) == positions[22:24]
    )  # without what precedes
    assert SampleOrder(range(7), seed=4, batch_size=7, num_slots=1).indices(0, 0) != epochs[0]


def test_a_loss_that_is_no_number_is_named_and_the_last_state_kept(tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"iteration 7 .*loss nan.*checkpoint-00000005\.pt"):
        run_toy(tmp_path, nan_at=7, checkpoint_every=5)
    assert read_state(newest_state(tmp_path)).iteration == 5
    assert len(read_losses(tmp_path / FILE)) == 7


def test_other_settings_are_refused_and_listed(tmp_path):
    run_toy(tmp_path, iterations=2)
    before = sorted(path.read_bytes() for path in tmp_path.iterdir())
    with pytest.raises(ResumeMismatchError) as error:
        run_toy(tmp_path, iterations=4, learning_rate=0.5, batch_size=3, checkpoint_every=1)
    message = str(error.value)
    assert (
        "batch_size was 2 and is now 3; learning_rate was 0.0001 and is now 0.5;" in message
        and "checkpoint_every" not in message
    )
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == before


def test_other_parameters_are_refused(tmp_path, monkeypatch):
    run_toy(tmp_path, iterations=2)
    monkeypatch.setattr("toy_training.ToyModel.__init__", larger_toy)
    with pytest.raises(ResumeMismatchError, match=r"1 differ\): 'out' was \(4, 8\) and is now \(4, 9\)"):
        run_toy(tmp_path, iterations=4)


def larger_toy(self, *arguments):
    torch.nn.Module.__init__(self)
    self.mix, self.out = torch.nn.Parameter(torch.zeros(8, 5)), torch.nn.Parameter(torch.zeros(4, 9))


def test_a_damaged_state_and_a_changed_log_are_named(tmp_path):
    run_toy(tmp_path, iterations=2)
    (tmp_path / FILE).write_text("")
    with pytest.raises(TrainingCheckpointError, match="has 0 lines, but the saved state is of iteration 2"):
        run_toy(tmp_path, iterations=4)
    newest_state(tmp_path).write_bytes(b"PK")
    with pytest.raises(TrainingCheckpointError, match="cannot be read"):
        run_toy(tmp_path, iterations=4)


def test_a_full_disk_is_named_and_leaves_no_half_state(tmp_path):
    """A limit on the size of files, which the operating system enforces as it does the size of the disk."""
    resource = pytest.importorskip("resource", reason="Windows limits no file's size")
    run_toy(tmp_path, iterations=2)
    size = newest_state(tmp_path).stat().st_size

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(TrainingCheckpointError) as error:
            run_toy(tmp_path, iterations=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the state after iteration 4 cannot be written" in str(error.value)
    assert "continues from checkpoint-00000002.pt" in str(error.value)
    assert [path.name for path in tmp_path.glob("checkpoint*")] == ["checkpoint-00000002.pt"]
    assert run_toy(tmp_path, iterations=4).iterations == 4


def test_states_are_saved_by_the_clock(tmp_path, monkeypatch):
    """An iteration takes a quarter of a minute by this clock, so that every fourth state is saved."""
    from fpga.fpga_core.training.engine import loop

    now, reported = [0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def report(line):
        now[0] += 15
        reported.append(newest_state(tmp_path))

    hooks = Hooks(report)
    run_toy(tmp_path, hooks, iterations=12, checkpoint_minutes=1.0, checkpoint_every=1, num_checkpoints=9)
    names = [path.name for path in sorted(tmp_path.glob("checkpoint-*.pt"))]
    assert names == ["checkpoint-00000005.pt", "checkpoint-00000009.pt", "checkpoint-00000012.pt"]  # and the end's
    assert reported[3] is None and reported[4].name == names[0]


def test_states_written_in_the_background_are_those_of_their_iteration(tmp_path, monkeypatch):
    """Training goes on while a slow disk writes, and neither waits for the other at its end."""
    from fpga.fpga_core.training.engine import saved_states

    settings = {"iterations": 6, "checkpoint_every": 2, "num_checkpoints": 9}
    run_toy(tmp_path / "whole", **settings)
    write, written, seen = saved_states.write_state, [], []

    def slow_write(folder, state, num_kept):
        time.sleep(0.3)
        written.append(state.iteration)
        return write(folder, state, num_kept)

    monkeypatch.setattr(saved_states, "write_state", slow_write)
    hooks = Hooks(lambda line: seen.append((line["iteration"], len(written))))
    run_toy(tmp_path / "background", hooks, saves_in_background=True, **settings)
    assert written == [2, 4, 6] and (1, 0) in seen
    for iteration in written:
        states = [read_state(tmp_path / name / f"checkpoint-{iteration:08}.pt") for name in ("whole", "background")]
        for kind in ("parameters", "average", "optimizer"):
            torch.testing.assert_close(*(getattr(state, kind) for state in states), rtol=0, atol=0)


def test_a_disk_that_fails_in_the_background_is_named_at_the_next_state(tmp_path):
    run_toy(tmp_path / "a", iterations=2)
    state = read_state(newest_state(tmp_path / "a"))
    writer = StateWriter(tmp_path / "missing", 2, in_background=True)
    writer.write(state)
    with pytest.raises(TrainingCheckpointError, match="the state after iteration 2 cannot be written"):
        writer.write(state)
    writer.finish()


def test_bf16_trains_float32_parameters(tmp_path):
    run_toy(tmp_path, iterations=3, precision=Precision.BFLOAT16)
    assert {value.dtype for value in read_state(newest_state(tmp_path)).parameters.values()} == {torch.float32}
    run_toy(tmp_path / "b", iterations=3)  # in the same program, in another precision
    assert (tmp_path / FILE).read_bytes() != (tmp_path / "b" / FILE).read_bytes()


def test_the_learning_rate_falls_to_near_0_at_the_end(tmp_path):
    outcome = run_toy(tmp_path, iterations=10, learning_rate=0.02, warmup=1, cooldown=3)
    rates = [line["learning_rate"] for line in outcome.losses]
    assert rates == pytest.approx([0.01, *[0.02] * 6, 0.015, 0.01, 0.005])


def test_the_schedules_are_those_of_torch():
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

    for schedule, oracle in (
        (Schedule.COSINE, lambda optimizer: CosineAnnealingLR(optimizer, T_max=9)),
        (Schedule.LINEAR, lambda optimizer: LinearLR(optimizer, 1.0, 0.0, total_iters=9)),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.02)
        scheduler, expected = oracle(optimizer), []
        for _ in range(9):
            expected.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        settings = TrainingSettings(iterations=9, learning_rate=0.02, schedule=schedule)
        assert [settings.learning_rate_at(number) for number in range(9)] == pytest.approx(expected)
        rising = TrainingSettings(iterations=12, learning_rate=0.02, schedule=schedule, warmup=3)
        found = [rising.learning_rate_at(number) for number in range(12)]
        assert found == pytest.approx([0.005, 0.01, 0.015, *expected])


def test_options_that_contradict_each_other_are_named():
    for options, message in (
        ({"schedule": Schedule.COSINE, "cooldown": 3}, "falls to 0 by itself"),
        ({"validate_every": 3}, "hold samples out"),
        ({"rates": (("mix", 0.0),)}, "the learning rate of 'mix' is 0"),
        ({"is_sharded": True, "optimizer": OptimizerKind.EIGHT_BIT}, "no 8-bit optimizer"),
        ({"is_sharded": True, "is_average_on_cpu": True}, "stays on their GPUs"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            TrainingSettings(iterations=9, **options)


def test_new_layers_learn_faster_and_the_others_as_before(tmp_path):
    start = {name: value.detach() for name, value in ToyModel().named_parameters()}
    learnt = {}
    for factor in (1.0, 10.0):
        run_toy(tmp_path / str(factor), iterations=1, learning_rate=0.001, ema_decay=0, new_layers_factor=factor)
        learnt[factor] = read_state(newest_state(tmp_path / str(factor))).parameters
    assert torch.equal(learnt[1.0]["mix"], learnt[10.0]["mix"])
    moved = [float((learnt[factor]["out"] - start["out"]).abs().max()) for factor in learnt]
    assert moved[1] == pytest.approx(10 * moved[0], rel=1e-3)


def test_a_training_goes_on_from_another_ones_state_with_other_settings(tmp_path):
    whole = run_toy(tmp_path / "whole", iterations=12, checkpoint_every=6, num_checkpoints=9)
    begun = tmp_path / "whole" / "checkpoint-00000006.pt"
    same = run_toy(tmp_path / "same", iterations=12, start=begun)
    assert same.losses == whole.losses
    other = run_toy(tmp_path / "other", iterations=12, learning_rate=0.05, checkpoint_every=2, start=begun)
    assert other.losses[:6] == whole.losses[:6] and other.losses[7:] != whole.losses[7:]
    longer = run_toy(tmp_path / "other", iterations=14, learning_rate=0.05, start=begun)  # its own state comes first
    assert longer.losses[:12] == other.losses


def test_a_start_without_its_log_is_named(tmp_path):
    run_toy(tmp_path / "whole", iterations=6, checkpoint_every=6)
    (tmp_path / "whole" / FILE).unlink()
    with pytest.raises(TrainingCheckpointError, match="losses.jsonl"):
        run_toy(tmp_path / "new", iterations=12, start=tmp_path / "whole" / "checkpoint-00000006.pt")


def test_without_accelerate_the_command_to_install_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingPackageError, match=r"-m pip install accelerate"):
        run_toy(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", 0),
        ("learning_rate", 0.0),
        ("ema_decay", 1.0),
        ("warmup", -1),
        ("cooldown", -1),
        ("new_layers_factor", 0.0),
        ("betas", (1, 0)),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InvalidInputError, match=f"{name} is"):
        TrainingSettings(**{"iterations": 1, name: value})
