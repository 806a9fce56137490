"""Trainings in separate processes: killed and started again, and several at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.training.engine.loss_log import FILE, read_losses
from fpga.fpga_core.training.engine.optimizers import OptimizerKind
from fpga.fpga_core.training.engine.saved_states import newest_state, read_state
from fpga.fpga_core.training.engine.settings import Schedule
from toy_training import assert_same_training, run_toy

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "toy_training.py"
BRANCH_PROGRAM = PROGRAM.with_name("branch_training.py")
SETTINGS = {"iterations": 5, "batch_size": 3, "learning_rate": 0.01, "checkpoint_every": 2}
TWO_PROCESSES = (
    "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
)


EVERY_OPTION = {
    "schedule": Schedule.COSINE,
    "rates": (("mix", 0.02),),
    "optimizer": OptimizerKind.EIGHT_BIT,
    "width": 1100,  # bitsandbytes keeps fewer than 4096 numbers in 32 bits
    "is_average_on_cpu": True,
    "held_out": 2,
    "validate_every": 3,
}


@pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["plain", "every option"])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, options):
    """Killed between two saved states: the log is ahead of the state, and is cut back."""
    settings = {"iterations": 14, "checkpoint_every": 5, "learning_rate": 0.01, **options}
    run_toy(tmp_path / "whole", **settings)
    folder = tmp_path / "killed"
    command = [sys.executable, str(PROGRAM), json.dumps({"folder": str(folder), "waits_after": 7, **settings})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while (line := process.stdout.readline().strip()) != "7":
            assert line, process.stderr.read()
        process.kill()
    assert len(read_losses(folder / FILE)) >= 8 and newest_state(folder).name == "checkpoint-00000005.pt"
    with (folder / FILE).open("a") as file:
        file.write('{"iteration": 99, "lo')  # and as if it had been in the middle of a line
    (folder / "checkpoint-00000010.part").write_bytes(b"half")
    outcome = run_toy(folder, **settings)
    assert outcome.iterations == 14
    assert_same_training(tmp_path / "whole", folder)
    assert not list(folder.glob("*.part"))


@pytest.mark.comfyui
def test_a_branch_with_identity_is_shared_by_two_processes(tmp_path):
    """The real networks, in two stages and with Clone Face Tuning, and the files that are exported."""
    launch(tmp_path / "two", program=BRANCH_PROGRAM, is_sharded=True)
    launch(tmp_path / "one", program=BRANCH_PROGRAM, num_processes=1, accumulation=2)
    lines = [read_losses(tmp_path / name / FILE) for name in ("two", "one")]
    assert len(lines[0]) == 3 and "l_cfa" in lines[0][2]
    for ours, theirs in zip(*lines, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    torch.testing.assert_close(*(first_gradients(tmp_path / name) for name in ("two", "one")), rtol=0, atol=1e-5)
    for file in ("repcontrolnet.safetensors", "identity_adapter.safetensors"):
        exported = [read_safetensors(tmp_path / name / file)[0] for name in ("two", "one")]
        torch.testing.assert_close(*exported, rtol=0, atol=1e-4)  # which two steps of 1e-4 could double


def launch(folder, program=PROGRAM, num_processes=2, **arguments):
    program = [str(program), json.dumps({"folder": str(folder), **arguments})]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *TWO_PROCESSES.split()]
    command = [*launcher, *program] if num_processes > 1 else [sys.executable, *program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_that_share_the_parameters_give_the_gradients_of_one(tmp_path):
    """One process continues where they stop, and they continue where one process stopped."""
    sharded, one = tmp_path / "sharded", tmp_path / "one"
    assert launch(sharded, accumulation=2, is_sharded=True, **{**SETTINGS, "iterations": 1})
    run_toy(one, accumulation=4, **{**SETTINGS, "iterations": 1})
    run_toy(sharded, accumulation=4, **{**SETTINGS, "iterations": 2})
    gradients = [first_gradients(folder) for folder in (sharded, one)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
    assert launch(sharded, accumulation=2, is_sharded=True, sample_every=2, **SETTINGS).count("stopped False") == 2
    run_toy(one, accumulation=4, **SETTINGS)
    for ours, theirs in zip(read_losses(sharded / FILE), read_losses(one / FILE), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for kind in ("parameters", "average", "optimizer"):
        states = [getattr(read_state(newest_state(folder)), kind) for folder in (sharded, one)]
        torch.testing.assert_close(*states, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*(read_safetensors(folder / "toy.safetensors")[0] for folder in (sharded, one)))


def first_gradients(folder):
    """Returns the clipped gradients of the first iteration, from the optimizer's first moment."""
    state = read_state(folder / "checkpoint-00000001.pt").optimizer["state"]
    return [values["exp_avg"] / (1 - 0.9) for values in state.values()]


def test_two_processes_give_the_gradients_of_one(tmp_path):
    """They match one process that accumulates two micro-batches, and continue where one process stopped."""
    one, two = tmp_path / "one", tmp_path / "two"
    run_toy(two, accumulation=2, **{**SETTINGS, "iterations": 1})
    assert launch(two, **SETTINGS).count("stopped False") == 2
    run_toy(one, accumulation=2, **SETTINGS)
    for ours, theirs in zip(read_losses(two / FILE), read_losses(one / FILE), strict=True):
        assert ours.keys() == theirs.keys()
        torch.testing.assert_close(torch.tensor(list(ours.values())), torch.tensor(list(theirs.values())))
    states = [read_state(newest_state(folder)) for folder in (one, two)]
    assert states[0].settings == states[1].settings and states[0].iteration == states[1].iteration == 5
    for name, value in states[0].parameters.items():
        torch.testing.assert_close(states[1].parameters[name], value)
