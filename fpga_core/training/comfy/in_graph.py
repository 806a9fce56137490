"""Runs a training inside a ComfyUI graph, with progress, Cancel, and the trained files where the loaders look."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from torch import Tensor

from ...boundaries import written_whole
from ...checkpoints import read_safetensors
from ...errors import InvalidInputError, TrainingCheckpointError
from ...identity.adapter_layouts import read_identity_adapter
from ...identity.adapters import IdentityAdapter
from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.layouts import read_repcontrolnet
from ..data.reading import TrainingSet
from ..engine.curves import LossCurves
from ..engine.loop import Hooks, Outcome
from ..engine.loss_log import as_loss_map
from ..engine.processes import start_processes
from ..method.output_files import IDENTITY_FILE, REPCONTROLNET_FILE
from ..plan import TrainingPlan
from .run import FrozenModels, run_training

RUNS = "fpga_training"
"""The folder for the files of each training, inside ComfyUI's output folder."""


@dataclass(frozen=True, kw_only=True)
class HostFolders:
    """ComfyUI's folders.

    Attributes:
        inputs: folder that contains the training sets.
        outputs: folder for generated files.
        controlnets: folder of RepControlNets for the loaders.
        adapters: folder of identity adapters for the loaders.
    """

    inputs: Path
    outputs: Path
    controlnets: Path
    adapters: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The result of a training for its node.

    Attributes:
        repcontrolnet: the trained branch, as read from its file.
        adapter: the trained identity adapter, as read from its file; None if no identity was trained.
        loss_map: the loss of every iteration, as ComfyUI's LOSS_MAP.
        curves: a plot of the loss and its parts, (1, height, width, 3) in [0, 1].
        report: the number of steps, the last loss, and the paths of the files.
    """

    repcontrolnet: RepControlNet
    adapter: IdentityAdapter | None
    loss_map: dict[str, list[float]]
    curves: Tensor
    report: str


def train_in_graph(
    plan: TrainingPlan, models: FrozenModels, *, data: str, output_name: str, folders: HostFolders
) -> Trained:
    """Trains with progress shown on the node, and puts the trained files where the loaders find them.

    Cancel saves the state and stops. Running the same node again continues from there.

    Args:
        plan: what is trained, and how; the task is REPCONTROLNET or IDENTITY.
        models: what the training reads.
        data: folder of the training set, inside ComfyUI's input folder.
        output_name: name of the training and of its files.
        folders: folders of ComfyUI.
    Raises:
        InvalidInputError: the name cannot be a file name, or the data is not inside the input folder.
        comfy.model_management.InterruptProcessingException: Cancel was pressed.
        FPGAError: as in `run_training`.
    """
    if not re.fullmatch(r"[\w-]+", output_name):
        raise InvalidInputError(f"'{output_name}' cannot be a file's name; use letters, digits, '-' and '_'")
    data_folder = _folder_below(folders.inputs, data)
    folder = folders.outputs / RUNS / output_name
    outcome = _train_with_progress(plan, models, data_folder=data_folder, folder=folder)
    branch_file = keep_file(folder / REPCONTROLNET_FILE, folders.controlnets, output_name)
    kept, adapter = [branch_file], None
    if plan.trains_identity:
        adapter_file = keep_file(folder / IDENTITY_FILE, folders.adapters, output_name)
        kept = [adapter_file, branch_file]
        adapter = read_identity_adapter(*read_safetensors(adapter_file), name=adapter_file.name)
    loss_map = as_loss_map(outcome.losses)
    report = [f"{outcome.iterations} steps, loss {loss_map['loss'][-1]:.4f}", *(f"saved {path}" for path in kept)]
    report += filter(None, [TrainingSet(data_folder).note])
    return Trained(
        repcontrolnet=read_repcontrolnet(*read_safetensors(branch_file), name=branch_file.name),
        adapter=adapter,
        loss_map=loss_map,
        curves=torch.as_tensor(np.array(LossCurves(outcome.losses).draw())).float()[None] / 255,
        report="\n".join(report),
    )


def _folder_below(inputs: Path, data: str) -> Path:
    top = os.path.abspath(inputs)
    folder = os.path.abspath(os.path.join(top, data))
    if os.path.commonpath([top, folder]) != top:
        raise InvalidInputError(f"'{data}' is not below ComfyUI's input folder; choose a folder there")
    return Path(folder)


def _train_with_progress(plan: TrainingPlan, models: FrozenModels, *, data_folder: Path, folder: Path) -> Outcome:
    device = comfy.model_management.get_torch_device()
    accelerator = start_processes(plan.settings.precision, use_cpu=device.type == "cpu")
    bar = comfy.utils.ProgressBar(plan.settings.iterations)

    def encoding(done: int, total: int) -> None:
        bar.update_absolute(done, total)
        comfy.model_management.throw_exception_if_processing_interrupted()

    outcome = run_training(
        plan,
        models,
        data_folder=data_folder,
        folder=folder,
        accelerator=accelerator,
        cache_folder=folder / "encodings",
        hooks=Hooks(
            report=lambda line: bar.update_absolute(int(line["iteration"]) + 1, plan.settings.iterations),
            should_stop=comfy.model_management.processing_interrupted,
        ),
        preparing=encoding,
    )
    comfy.model_management.throw_exception_if_processing_interrupted()
    return outcome


def keep_file(file: Path, folder: Path, name: str) -> Path:
    """Copies a trained file into a folder, under the next free number.

    Args:
        file: what was trained.
        folder: created if it does not exist.
        name: the start of the copy's name.
    Returns:
        The copy.
    Raises:
        TrainingCheckpointError: it cannot be written; there is no half copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (path := folder / f"{name}_{number:05}.safetensors").exists():
        number += 1
    with written_whole(path, TrainingCheckpointError) as partial:
        shutil.copyfile(file, partial)
    return path
