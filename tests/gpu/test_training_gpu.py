"""Training on a GPU, in the precisions that only it has; skipped, saying so, without one."""

import pytest
import torch
from fpga.fpga_core.training.engine.saved_states import newest_state, read_state
from fpga.fpga_core.training.engine.settings import Precision
from toy_training import run_toy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.mark.parametrize("precision", Precision)
def test_a_gpu_trains_as_the_cpu_does_and_resumes(tmp_path, precision):
    settings = {"learning_rate": 0.01, "ema_decay": 0.5, "dropout": 0.0}
    expected = run_toy(tmp_path / "cpu", iterations=8, **settings)
    run_toy(tmp_path / "gpu", iterations=4, precision=precision, use_cpu=False, **settings)
    found = run_toy(tmp_path / "gpu", iterations=8, precision=precision, use_cpu=False, **settings)
    rtol = 1e-4 if precision is Precision.FLOAT32 else 0.05
    for ours, theirs in zip(found.losses, expected.losses, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=rtol)
    state = read_state(newest_state(tmp_path / "gpu"))
    assert (state.scaler is not None) == (precision is Precision.FLOAT16)
