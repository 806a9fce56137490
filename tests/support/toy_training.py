"""A training of a few numbers; as a program, what a test starts, kills and starts again: `toy_training.py JSON`."""

import json
import runpy
import sys
import time
from pathlib import Path

import torch

if __name__ == "__main__":
    launch = Path(__file__).resolve().parents[2] / "devtools" / "launch.py"
    runpy.run_path(str(launch))["register_pack"]()

from fpga.fpga_core.checkpoints import write_safetensors
from fpga.fpga_core.training.data.batch import TrainingBatch
from fpga.fpga_core.training.engine.loop import Hooks, train
from fpga.fpga_core.training.engine.loss_log import FILE
from fpga.fpga_core.training.engine.optimizers import OptimizerKind
from fpga.fpga_core.training.engine.processes import start_processes
from fpga.fpga_core.training.engine.saved_states import newest_state, read_state
from fpga.fpga_core.training.engine.settings import Precision, Schedule, TrainingSettings
from fpga.fpga_core.training.method.objective import TrainingModel


class ToyModel(TrainingModel):
    """Predicts the noise in a latent from the latent, its mask and its text, by two small layers."""

    new_layers = ("out",)

    def __init__(self, nan_at: int | None = None, dropout: float = 0.1, width: int = 8):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.mix = torch.nn.Parameter(0.5 * torch.randn(width, 5, generator=generator))
        self.out = torch.nn.Parameter(0.5 * torch.randn(4, width, generator=generator))
        self.nan_at, self.dropout = nan_at, dropout

    def forward(self, batch, iteration, generator):
        noise = torch.randn(batch.latents.shape, generator=generator).to(batch.device)
        seen = torch.cat([batch.latents + noise, batch.face_masks], dim=1)
        hidden = torch.tanh(torch.einsum("oc,bchw->bohw", self.mix, seen))
        hidden = torch.nn.functional.dropout(hidden, self.dropout)  # from the global generator
        error = torch.einsum("oc,bchw->bohw", self.out, hidden) - noise
        loss = error.square().mean()
        if iteration == self.nan_at:
            loss = loss * float("nan")
        parts = {"loss": loss, "noise": noise.std()}
        return parts if iteration % 2 else {**parts, "even": loss.detach() / 2}

    def export(self, folder, trained_on):
        write_safetensors(folder / "toy.safetensors", dict(self.named_parameters()), {"trained_on": trained_on})
        return [folder / "toy.safetensors"]


class ToyBatches:
    fingerprint = "toy"

    def __len__(self):
        return 7

    def batch(self, indices):
        def random(*shape):
            rows = [torch.randn(shape, generator=torch.Generator().manual_seed(index)) for index in indices]
            return torch.stack(rows)

        pictures = random(3, 32, 32).sigmoid()
        return TrainingBatch(
            latents=random(4, 4, 4),
            text=random(2, 8),
            null_text=torch.zeros(1, 2, 8),
            skeleton=pictures,
            landmarks=pictures,
            embeddings=random(512),
            face_masks=random(1, 4, 4).sigmoid(),
        )


def run_toy(
    folder,
    hooks=None,
    nan_at=None,
    precision=Precision.FLOAT32,
    use_cpu=True,
    dropout=0.1,
    width=8,
    start=None,
    **settings,
):
    settings = TrainingSettings(**{"iterations": 12, "batch_size": 2, "precision": precision, **settings})
    accelerator = start_processes(precision, use_cpu)
    return train(
        ToyModel(nan_at, dropout, width),
        ToyBatches(),
        settings,
        folder=Path(folder),
        accelerator=accelerator,
        model_settings={"model": "toy"},
        trained_on="toy data",
        hooks=hooks,
        start=start,
    )


def assert_same_training(one, other):
    """Two folders hold the same losses, states and exported files, bit for bit."""
    assert (one / FILE).read_bytes() == (other / FILE).read_bytes()
    states = [read_state(newest_state(folder)) for folder in (one, other)]
    for kind in ("parameters", "average"):
        ours, theirs = (getattr(state, kind) for state in states)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (one / "toy.safetensors").read_bytes() == (other / "toy.safetensors").read_bytes()


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    for name, kind in (("optimizer", OptimizerKind), ("schedule", Schedule)):
        if name in arguments:
            arguments[name] = kind(arguments[name])
    waits_after = arguments.pop("waits_after", None)

    def report(line):
        sys.stdout.write(f"{int(line['iteration'])}\n")
        sys.stdout.flush()
        if line["iteration"] == waits_after:
            time.sleep(600)  # to be killed there

    outcome = run_toy(hooks=Hooks(report), **arguments)
    sys.stdout.write(f"stopped {outcome.was_stopped}\n")
