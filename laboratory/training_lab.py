"""`dev.py world evaluate training`: the effect of training on held-out people, and a comparison of the short trials.

Every network generates the same held-out pictures, and its loss is measured on held-out lessons with the same noise.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..fpga_core.checkpoints import read_safetensors
from ..fpga_core.evaluation.table import Spread
from ..fpga_core.identity.adapter_layouts import read_identity_adapter
from ..fpga_core.repcontrolnet.layouts import read_repcontrolnet
from ..fpga_core.training.comfy.repcontrolnet import RepControlNetTraining
from ..fpga_core.training.data.encoded_set import EncodedSet
from ..fpga_core.training.engine.averaging import ParameterAverage
from ..fpga_core.training.engine.saved_states import newest_state, read_state
from ..fpga_core.training.method.output_files import IDENTITY_FILE, REPCONTROLNET_FILE
from .gallery import HELD_OUT_SEED, gallery
from .laboratory import Case, Laboratory, Way
from .lessons import lessons, write_set
from .scenes import Shot
from .shipped import RECOGNISER, load_checkpoint
from .trials import SETTINGS, TRIALS, Trial, trial_folder, world_set

NUM_CASES = 24
NUM_HELD_OUT = 400
BATCH = 32
SEEDS = ("w 0.1", "w 0.1, seed 1", "w 0.1, seed 2")
"""The same training from three seeds, which is compared with the untrained branch."""


RUNS = {"the paper's stages, 2,400 iterations of 32": "stages", "shipped, 2,400 iterations more": "branch"}
"""Whole trainings, in addition to the trials."""


@dataclass(frozen=True)
class Figures:
    """How well a network does on held-out people."""

    loss: float
    facesim: Spread
    pose_error: Spread


def held_out_loss(model: RepControlNetTraining, batches: EncodedSet) -> float:
    """Returns the mean loss over held-out lessons. Timesteps, noise and drops are the same for every network."""
    losses = []
    for start in range(0, len(batches) - BATCH + 1, BATCH):
        batch = batches.batch(range(start, start + BATCH))
        with torch.no_grad():
            losses += [float(model(batch, 0, torch.Generator().manual_seed(start + i))["loss"]) for i in range(2)]
    return float(np.mean(losses))


class TrainingLab:
    """Trained networks, and held-out people to measure them on."""

    def __init__(self, folder: Path, num_cases: int = NUM_CASES) -> None:
        self.folder = folder
        self.lab = Laboratory()
        self.cases: Sequence[Case] = self.lab.cases(Shot.HALF, num_cases)
        held_out = folder / "held_out_lessons"
        pictures = gallery(folder / "held_out_pictures", NUM_HELD_OUT, HELD_OUT_SEED)
        write_set(held_out, RECOGNISER, lambda recogniser: lessons(pictures, recogniser, HELD_OUT_SEED))
        self.held_out = world_set(held_out, self.lab.recogniser.hash, folder / "encodings")

    def figures(self, trial: Trial, trained: Path | None) -> Figures:
        """Returns the figures of a trial's network before or after its training.

        Args:
            trained: the folder of its training; None: the network before its training.
        """
        model = trial.start(load_checkpoint()[0], self.lab.recogniser.hash)
        if trained is None:
            loss = held_out_loss(model, self.held_out)
            way = Way(branch=model.repcontrolnet(""), adapter=model.identity_adapter())
        else:
            path = newest_state(trained)
            assert path is not None
            average = ParameterAverage(trainable(model), SETTINGS.ema_decay)
            average.load_state_dict(read_state(path).average)
            with average.applied():
                loss = held_out_loss(model, self.held_out)
            way = read_way(trained)
        measured = [
            self.lab.measure(case, picture)
            for case, picture in zip(self.cases, self.lab.generate(way, self.cases), strict=True)
        ]
        facesim, pose = (Spread.of([row[name] for row in measured]) for name in ("FaceSim", "pose error"))
        return Figures(loss, facesim, pose)


def trainable(model: RepControlNetTraining) -> Mapping[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def present(file: Path) -> Path:
    """Raises FileNotFoundError unless the file is there."""
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, "not trained", str(file))
    return file


def read_way(folder: Path) -> Way:
    """Reads what a training of branch, identity or both has exported.

    Raises:
        FileNotFoundError: nothing has been trained there.
    """
    branch = None
    present(folder / IDENTITY_FILE)
    if (file := folder / REPCONTROLNET_FILE).exists():
        branch = read_repcontrolnet(*read_safetensors(file), name=file.name)
    file = folder / IDENTITY_FILE
    adapter = read_identity_adapter(*read_safetensors(file), name=file.name)
    return Way(branch=branch, adapter=adapter)


def evaluate_training(folder: Path) -> str:
    """Returns two Markdown tables: all trials, and the comparison over three seeds."""
    lab = TrainingLab(folder)
    lines = ["| training | held-out loss | FaceSim | pose error |", "|---|---|---|---|"]

    def row(name: str, figures: Figures) -> None:
        lines.append(f"| {name} | {figures.loss:.4f} | {figures.facesim} | {figures.pose_error} |")
        print(lines[-1], flush=True)

    differences: dict[str, list[float]] = {"held-out loss": [], "FaceSim": [], "pose error": []}
    for name, trial in TRIALS.items():
        if not (trial_folder(folder, name) / IDENTITY_FILE).exists():
            print(f"left out: {name}; train it with `dev.py world train trials`", flush=True)
            continue
        after = lab.figures(trial, trial_folder(folder, name))
        row(name, after)
        if name in SEEDS:
            before = lab.figures(trial, None)
            row(f"{name}, before training", before)
            differences["held-out loss"].append(after.loss - before.loss)
            differences["FaceSim"].append(after.facesim.mean - before.facesim.mean)
            differences["pose error"].append(after.pose_error.mean - before.pose_error.mean)
    for name, run in RUNS.items():
        if (folder / run / IDENTITY_FILE).exists():
            row(name, lab.figures(Trial(), folder / run))
    lines += ["", "| after less before, over three seeds | mean | standard error | ratio |", "|---|---|---|---|"]
    for name, values in differences.items() if len(differences["FaceSim"]) == len(SEEDS) else ():
        spread = Spread.of(values)
        lines.append(f"| {name} | {spread.mean:+.4f} | {spread.error:.4f} | {abs(spread.mean) / spread.error:.1f} |")
    return "\n".join(lines)
