"""`fpga-portrait train TASK ...`: trains on a checkpoint and a folder of data. docs/training.md explains the options.

    fpga-portrait train repcontrolnet --checkpoint FILE --data FOLDER --output FOLDER [options]
    fpga-portrait train identity      --checkpoint FILE --data FOLDER --output FOLDER --face-analysis FOLDER [options]
    fpga-portrait train controlnet    --checkpoint FILE --data FOLDER --output FOLDER [options]
    fpga-portrait train check         --data FOLDER

The same command resumes a training that was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fpga_core.training.engine.settings import Precision, TrainingSettings
from . import INTERRUPTED
from .comfyui import PACK, import_comfyui

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..fpga_core.training.comfy.run import FrozenModels
    from ..fpga_core.training.plan import TrainingPlan

CHECK = "check"
TASKS = ("repcontrolnet", "identity", "controlnet")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fpga-portrait train",
        usage="fpga-portrait train TASK --data FOLDER [options]",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", choices=(*TASKS, CHECK), help=", ".join((*TASKS, CHECK)))
    parser.add_argument(
        "--config", type=Path, help=("a .json or .toml file with options, whose names have no dashes in front")
    )
    parser.add_argument(
        "--multiple", type=int, default=64, help=("for check: the sides of the pictures must be multiples of this")
    )
    files = parser.add_argument_group("files")
    files.add_argument("--data", type=Path, help="the training set: a folder of samples or of shards")
    files.add_argument("--output", type=Path, help="folder for saved states, logs, curves and the trained files")
    files.add_argument("--cache", type=Path, help="folder that keeps encodings; default: OUTPUT/encodings")
    files.add_argument(
        "--memory-mib", type=int, default=1024, help="memory of each process for encodings that are kept in it"
    )
    files.add_argument(
        "--text-dtype", choices=("float32", "float16"), default="float32", help="of the captions in the encodings"
    )
    files.add_argument("--checkpoint", type=Path, help="the base: an SD1.5 or SDXL checkpoint with CLIP and VAE")
    files.add_argument(
        "--custom-node", type=Path, help=("folder of a node pack that teaches ComfyUI the architecture of the base")
    )
    files.add_argument("--vae", type=Path, help="a VAE to use instead of the checkpoint's")
    files.add_argument("--face-analysis", type=Path, help="insightface pack, if the data has no embeddings")
    files.add_argument("--clip-vision", type=Path, help="a CLIP-Vision model, whose features the identity also reads")
    files.add_argument("--start-from", type=Path, help="checkpoint-*.pt of another training to start from")
    files.add_argument("--repcontrolnet", type=Path, help="the branch to start from")
    files.add_argument("--identity-adapter", type=Path, help="the identity adapter to start from")
    dtypes = ("float32", "float16", "bfloat16")
    files.add_argument("--save-dtype", choices=dtypes, default=dtypes[0], help="of the trained files")
    stages = parser.add_argument_group("stages, in iterations")
    stages.add_argument("--landmarks", type=int, default=50_000)
    stages.add_argument("--skeleton", type=int, default=100_000)
    stages.add_argument("--both", type=int, default=1_000_000)
    stages.add_argument("--iterations", type=int, help="stop here instead of after the last stage")
    stages.add_argument(
        "--clone-every",
        type=int,
        default=10,
        help=("Clone Face Tuning once in this many iterations of the last stage; 0: never"),
    )
    stages.add_argument(
        "--single-share",
        type=float,
        default=0.0,
        help="share of the last stage that shows landmarks alone, with an equal share for skeletons alone",
    )
    stages.add_argument(
        "--face-weight",
        type=float,
        default=0.0,
        help="extra weight of the pixels of faces in the loss; every pixel has a weight of 1",
    )
    engine = parser.add_argument_group("engine")
    default = TrainingSettings
    engine.add_argument("--batch-size", type=int, default=default.batch_size, help="per process and micro-batch")
    engine.add_argument("--accumulation", type=int, default=default.accumulation, help="micro-batches per iteration")
    engine.add_argument("--learning-rate", type=float, default=default.learning_rate)
    engine.add_argument(
        "--new-layers-factor",
        type=float,
        default=default.new_layers_factor,
        help="multiple of the learning rate for layers that start from random weights",
    )
    engine.add_argument(
        "--warmup", type=int, default=default.warmup, help=("iterations over which the learning rate rises from 0")
    )
    engine.add_argument(
        "--cooldown", type=int, default=default.cooldown, help=("iterations over which it falls to 0 at the end")
    )
    engine.add_argument("--ema-decay", type=float, default=default.ema_decay)
    engine.add_argument("--max-grad-norm", type=float, default=default.max_grad_norm)
    engine.add_argument("--seed", type=int, default=default.seed)
    precisions = [precision.value for precision in Precision]
    engine.add_argument("--precision", choices=precisions, default=default.precision.value)
    engine.add_argument("--gradient-checkpointing", action="store_true", help="slower, but needs much less memory")
    engine.add_argument("--checkpoint-every", type=int, default=default.checkpoint_every)
    engine.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=default.checkpoint_minutes,
        help="save by the clock instead of by iterations",
    )
    engine.add_argument("--num-checkpoints", type=int, default=default.num_checkpoints)
    engine.add_argument(
        "--saves-in-background",
        action="store_true",
        help="train on while a state is written; needs CPU memory for a copy of it",
    )
    engine.add_argument("--sample-every", type=int, default=default.sample_every, help="0: no sample pictures")
    engine.add_argument("--with-identity", action="store_true", help="train identity tokens together with the control")
    engine.add_argument("--identity-dim", type=int, help="width between embedding and tokens; default: as published")
    engine.add_argument("--cpu", action="store_true", help="do not use the GPU")
    engine.add_argument(
        "--fsdp",
        dest="is_sharded",
        action="store_true",
        help="split parameters and optimizer over the processes, for models that do not fit one GPU",
    )
    engine.add_argument("--num-processes", type=int, default=1, help="processes on this machine, one GPU each")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the options of the command line, and those of the config file that it does not set."""
    parser = build_parser()
    config: Path | None = parser.parse_args(arguments).config
    if config is not None:
        arguments = [
            arguments[0],
            *config_options(parser, config),
            *arguments[1:],
        ]  # the last of two equal options wins
    given = parser.parse_args(arguments)
    needed = ("data",) if given.task == CHECK else ("data", "output", "checkpoint")
    if missing := [f"--{name}" for name in needed if getattr(given, name) is None]:
        parser.error(f"{given.task} needs {', '.join(missing)}")
    return given


def config_options(parser: argparse.ArgumentParser, config: Path) -> list[str]:
    """Returns the options in a config file in the form of a command line."""
    known = {option for action in parser._actions for option in action.option_strings}
    values = {f"--{name.replace('_', '-')}": value for name, value in read_config(config).items()}
    if unknown := sorted(values.keys() - known):
        names = ", ".join(name.removeprefix("--") for name in unknown)
        parser.error(f"{config} sets {names}, which is not an option; `{parser.prog} --help` lists the options")
    words: list[str] = []
    for option, value in values.items():
        words += ([option] if value else []) if isinstance(value, bool) else [option, str(value)]
    return words


def read_config(path: Path) -> dict[str, Any]:
    """Reads a config file.

    Raises:
        InvalidInputError: it cannot be read, or is not a table of options; the message names the file.
    """
    from ..fpga_core.boundaries import guarded
    from ..fpga_core.errors import InvalidInputError

    advice = "correct it: it must be JSON or, with the ending .toml, TOML"
    with guarded(InvalidInputError, f"the config file '{path}' cannot be read", advice=advice):
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".toml":
            import tomllib  # of Python 3.11

            content = tomllib.loads(text)
        else:
            content = json.loads(text)
    plain = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(value, (str, int, float, bool)) for value in plain):
        raise InvalidInputError(
            f"the config file '{path}' must be a table of option names with one text, number, true or false each"
        )
    return content


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
    return TrainingSettings(**{**values, "iterations": iterations, "precision": Precision(given.precision)})


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
        curriculum=Curriculum(fusion, face_weight=given.face_weight),
        encodings=EncodingSettings(memory_mib=given.memory_mib, text_dtype=getattr(torch, given.text_dtype)),
        has_identity=given.with_identity,
        identity_dim=given.identity_dim or PROJECTION_DIM,
        is_checkpointed=given.gradient_checkpointing,
        save_dtype=getattr(torch, given.save_dtype),
    )


def run(given: argparse.Namespace) -> int:
    """Trains in this process."""
    import torch

    from ..fpga_core.training.engine.processes import start_processes

    settings = settings_of(given)
    accelerator = start_processes(settings.precision, use_cpu=not torch.cuda.is_available())  # before ComfyUI
    import_comfyui()
    from ..fpga_core.training.comfy.run import run_training
    from ..fpga_core.training.engine.loop import Hooks

    is_main = accelerator.is_main_process
    show = progress_bar("training", is_shown=is_main)
    outcome = run_training(
        plan_of(given),
        load_models(given),
        data_folder=given.data,
        folder=given.output,
        accelerator=accelerator,
        cache_folder=given.cache or given.output / "encodings",
        hooks=Hooks(report=lambda line: show(int(line["iteration"]) + 1, settings.iterations)),
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
