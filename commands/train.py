"""`fpga-portrait train TASK ...`: trains on a checkpoint and a folder of data, see docs/training.md."""

from __future__ import annotations

import argparse
import dataclasses
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..fpga_core.training.engine.optimizers import OptimizerKind
from ..fpga_core.training.engine.processes import Tracker, report_to_tracker, start_processes
from ..fpga_core.training.engine.settings import Precision, Schedule, TrainingSettings
from . import INTERRUPTED
from .comfyui import PACK, import_comfyui
from .train_options import CHECK, parse

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..fpga_core.training.comfy.run import FrozenModels
    from ..fpga_core.training.plan import TrainingPlan


def progress_bar(title: str, *, is_shown: bool) -> Callable[[int, int], None]:
    """Shows how many items are done."""
    from tqdm import tqdm

    bars: list[tqdm[Any]] = []

    def show(done: int, total: int) -> None:
        if not bars:  # a resumed training starts in the middle
            bars.append(tqdm(desc=title, total=total, initial=done - 1, disable=not is_shown))
        bars[0].update(done - bars[0].n)

    return show


def check(given: argparse.Namespace) -> int:
    """Reads the whole set, reports every problem, and returns 1 if there is one."""
    from ..fpga_core.training.data.reading import TrainingSet, faults

    data = TrainingSet(given.data, multiple_px=given.multiple)
    found = list(faults(data, progress_bar("checking", is_shown=True)))
    summary = f"{len(data)} samples of {data.extent}, {len(found)} that cannot be used"
    print("\n".join(filter(None, [*found, data.note, summary])))
    return min(len(found), 1)


def launch_processes(given: argparse.Namespace, arguments: list[str]) -> int:
    """Starts this command again in several processes with `accelerate launch`."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(given.num_processes), "--mixed_precision", given.precision]
    command += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command += [str(PACK / "__main__.py"), "train", *arguments]
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # which the launcher passes on
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the processes were interrupted too, and are saving their state


def settings_of(given: argparse.Namespace) -> TrainingSettings:
    """Returns the settings of the engine that the options name."""
    fields = {field.name for field in dataclasses.fields(TrainingSettings)} & vars(given).keys()
    values = {name: getattr(given, name) for name in fields}
    iterations = given.iterations or given.landmarks + given.skeleton + given.both
    values |= {
        "iterations": iterations,
        "precision": Precision(given.precision),
        "schedule": Schedule(given.schedule),
        "optimizer": OptimizerKind(given.optimizer),
    }
    return TrainingSettings(**values)


def plan_of(given: argparse.Namespace) -> TrainingPlan:
    """Returns the plan that the options name."""
    import torch

    from ..fpga_core.identity.resampler import PROJECTION_DIM
    from ..fpga_core.training.method.curriculum import Curriculum
    from ..fpga_core.training.method.fusion import MultiModeFusion
    from ..fpga_core.training.plan import EncodingSettings, Task, TrainingPlan

    fusion = MultiModeFusion(
        given.landmarks, given.skeleton, given.both, clone_every=given.clone_every, single_share=given.single_share
    )
    return TrainingPlan(
        task=Task(given.task),
        settings=settings_of(given),
        curriculum=Curriculum(fusion, face_weight=given.face_weight, min_snr_gamma=given.min_snr_gamma),
        encodings=EncodingSettings(memory_mib=given.memory_mib, text_dtype=getattr(torch, given.text_dtype)),
        has_identity=given.with_identity,
        identity_dim=given.identity_dim or PROJECTION_DIM,
        is_checkpointed=given.gradient_checkpointing,
        save_dtype=getattr(torch, given.save_dtype),
    )


def run(given: argparse.Namespace) -> int:
    """Trains in this process."""
    import torch

    settings = settings_of(given)
    tracker = None if given.tracker is None else Tracker(given.tracker)
    accelerator = start_processes(  # before ComfyUI
        settings.precision, use_cpu=not torch.cuda.is_available(), tracker=tracker, folder=given.output
    )
    import_comfyui()
    from ..fpga_core.training.comfy.run import run_training
    from ..fpga_core.training.engine.loop import Hooks

    is_main = accelerator.is_main_process
    show = progress_bar("training", is_shown=is_main)

    def report(line: Mapping[str, float]) -> None:
        show(int(line["iteration"]) + 1, settings.iterations)
        if tracker is not None:
            report_to_tracker(accelerator, line)

    outcome = run_training(
        plan_of(given),
        load_models(given),
        data_folder=given.data,
        folder=given.output,
        accelerator=accelerator,
        cache_folder=given.cache or given.output / "encodings",
        hooks=Hooks(report=report),
        preparing=progress_bar("encoding", is_shown=is_main),
        start=given.start_from,
    )
    accelerator.end_training()
    if is_main and outcome.was_stopped:
        print(f"stopped after iteration {outcome.iterations}; run the command again to continue")
    elif is_main:
        print("\n".join(["trained:", *map(str, outcome.files)]))
    return INTERRUPTED if outcome.was_stopped else 0


def load_models(given: argparse.Namespace) -> FrozenModels:
    """Loads the frozen models from the given files."""
    import comfy.clip_vision
    import comfy.sd
    import comfy.utils

    from ..fpga_core.boundaries import guarded
    from ..fpga_core.checkpoints import read_safetensors
    from ..fpga_core.errors import CheckpointReadError
    from ..fpga_core.faces.insightface_pack import load_insightface_pack
    from ..fpga_core.identity.adapter_layouts import read_identity_adapter
    from ..fpga_core.patching.clip_vision import ClipVisionEncoder
    from ..fpga_core.repcontrolnet.layouts import read_repcontrolnet
    from ..fpga_core.training.comfy.run import FrozenModels

    if given.custom_node is not None:
        runpy.run_path(str(given.custom_node / "__init__.py"))
    advice = "choose an SD1.5 or SDXL checkpoint"
    with guarded(CheckpointReadError, f"'{given.checkpoint}' cannot be loaded", advice=advice):
        model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(given.checkpoint))
    if given.vae is not None:
        with guarded(CheckpointReadError, f"'{given.vae}' cannot be loaded", advice="choose a VAE for SD1.5 or SDXL"):
            vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(given.vae), safe_load=True))
    analysis = None if given.face_analysis is None else load_insightface_pack(given.face_analysis)
    vision = None
    if given.clip_vision is not None:
        with guarded(
            CheckpointReadError, f"'{given.clip_vision}' cannot be loaded", advice="choose a CLIP-Vision file"
        ):
            vision = ClipVisionEncoder(comfy.clip_vision.load(str(given.clip_vision)))
    branch = None
    if given.repcontrolnet is not None:
        branch = read_repcontrolnet(*read_safetensors(given.repcontrolnet), name=given.repcontrolnet.name)
    adapter = None
    if given.identity_adapter is not None:
        adapter = read_identity_adapter(*read_safetensors(given.identity_adapter), name=given.identity_adapter.name)
    return FrozenModels(
        model=model,
        clip=clip,
        vae=vae,
        face_analysis=analysis,
        clip_vision=vision,
        branch=branch,
        adapter=adapter,
    )


def main(arguments: list[str]) -> int:
    """Trains or checks. The exit status is 1 if samples cannot be used, and 130 if the training was stopped."""
    given = parse(arguments)
    if given.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if given.task == CHECK:
        return check(given)
    if given.num_processes > 1 and "LOCAL_RANK" not in os.environ:
        return launch_processes(given, arguments)
    return run(given)
