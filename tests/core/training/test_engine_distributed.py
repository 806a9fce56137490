"""Two processes under `accelerate launch` train as one process does that accumulates two micro-batches."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from fpga.fpga_core.training.engine.loss_log import FILE, read_losses
from fpga.fpga_core.training.engine.saved_states import newest_state, read_state
from toy_training import run_toy

PROGRAM = Path(__file__).resolve().parents[2] / "support" / "toy_training.py"
SETTINGS = {"iterations": 5, "batch_size": 3, "learning_rate": 0.01, "checkpoint_every": 2}


def launch(folder, **arguments):
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        str(PROGRAM), json.dumps({"folder": str(folder), **arguments}),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_give_the_gradients_of_one(tmp_path):
    """They also go on where one process stopped: what counts is the number of slots."""
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
