"""`dev.py train TASK ...`: trains on a checkpoint and a folder of data; docs/training.md explains every word of it.

    python dev.py train repcontrolnet --checkpoint FILE --data FOLDER --output FOLDER [options]
    python dev.py train identity      --checkpoint FILE --data FOLDER --output FOLDER --face-analysis FOLDER [options]
    python dev.py train controlnet    --checkpoint FILE --data FOLDER --output FOLDER [options]
    python dev.py train check         --data FOLDER

Run again with the same words, a training goes on where it stopped.
"""

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

from ..fpga_core.errors import FPGAError
from .launch import ROOT, import_comfyui

CHECK = "check"
TASKS = ("repcontrolnet", "identity", "controlnet")


def build_parser() -> argparse.ArgumentParser:
    from ..fpga_core.identity.resampler import PROJECTION_DIM
    from ..fpga_core.training.engine.settings import TrainingSettings

    settings = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}
    parser = argparse.ArgumentParser("dev.py train", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = (__doc__ or "").partition("\n\n")[2]
    parser.add_argument("task", choices=(*TASKS, CHECK))
    parser.add_argument(
        "--config", type=Path, help="options of this list, without the dashes, in a .json or .toml file"
    )
    files = parser.add_argument_group("files")
    files.add_argument("--data", type=Path, help="the training set: a folder of samples or of shards")
    files.add_argument("--output", type=Path, help="gets saved states, logs, curves and the trained files")
    files.add_argument("--cache", type=Path, help="keeps encodings; default: OUTPUT/encodings")
    files.add_argument("--checkpoint", type=Path, help="the base: an SD1.5 checkpoint with CLIP and VAE")
    files.add_argument("--custom-node", type=Path, help="teaches ComfyUI an architecture first: its folder")
    files.add_argument("--vae", type=Path, help="another VAE than the checkpoint's")
    files.add_argument("--face-analysis", type=Path, help="insightface pack, where the data has no embeddings")
    files.add_argument("--clip-vision", type=Path, help="what the identity reads beside the embedding")
    files.add_argument("--start-from", type=Path, help="another training's checkpoint-*.pt, to go on from otherwise")
    files.add_argument("--repcontrolnet", type=Path, help="the branch to start from")
    files.add_argument(
        "--save-dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the trained files"
    )
    stages = parser.add_argument_group("stages, in iterations")
    stages.add_argument("--landmarks", type=int, default=50_000)
    stages.add_argument("--skeleton", type=int, default=100_000)
    stages.add_argument("--both", type=int, default=1_000_000)
    stages.add_argument("--iterations", type=int, help="ends earlier or later than the stages do")
    stages.add_argument("--clone-every", type=int, default=10, help="Clone Face Tuning in the last stage; 0: never")
    stages.add_argument(
        "--single-share", type=float, default=0.0, help="landmarks alone, and skeletons alone, in the last stage"
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument("--batch-size", type=int, default=settings["batch_size"], help="per process and micro-batch")
    engine.add_argument(
        "--accumulation", type=int, default=settings["accumulation"], help="micro-batches per iteration"
    )
    engine.add_argument("--learning-rate", type=float, default=settings["learning_rate"])
    engine.add_argument(
        "--new-layers-factor", type=float, default=settings["new_layers_factor"],
        help="of the learning rate, for what starts from random weights",
    )  # fmt: skip
    engine.add_argument("--warmup", type=int, default=settings["warmup"])
    engine.add_argument("--cooldown", type=int, default=settings["cooldown"], help="falling to 0, at the end")
    engine.add_argument("--ema-decay", type=float, default=settings["ema_decay"])
    engine.add_argument("--max-grad-norm", type=float, default=settings["max_grad_norm"])
    engine.add_argument("--seed", type=int, default=settings["seed"])
    engine.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no")
    engine.add_argument("--gradient-checkpointing", action="store_true", help="slower, in much less memory")
    engine.add_argument("--checkpoint-every", type=int, default=settings["checkpoint_every"])
    engine.add_argument("--num-checkpoints", type=int, default=settings["num_checkpoints"])
    engine.add_argument("--sample-every", type=int, default=settings["sample_every"], help="0: no sample pictures")
    engine.add_argument("--with-identity", action="store_true", help="trains identity tokens with the control")
    engine.add_argument("--identity-dim", type=int, default=PROJECTION_DIM, help="width between embedding and tokens")
    engine.add_argument("--cpu", action="store_true", help="leaves the GPU alone")
    engine.add_argument("--num-processes", type=int, default=1, help="on this machine, one GPU each")
    parser.add_argument("--multiple", type=int, default=64, help="check: sides of the pictures are multiples of this")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, those of the config file below those of the command line."""
    parser = build_parser()
    config = parser.parse_args(arguments).config
    if config is not None:
        values = {name.replace("-", "_"): value for name, value in read_config(config).items()}
        known = {action.dest: action for action in parser._actions}
        if unknown := sorted(values.keys() - known.keys()):
            parser.error(f"{config} sets {', '.join(unknown)}, which is no option; `dev.py train --help` lists them")
        words = []
        for name, value in values.items():
            flag = known[name].option_strings[-1]
            words += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
        arguments = [arguments[0], *words, *arguments[1:]]
    given = parser.parse_args(arguments)
    needed = ("data",) if given.task == CHECK else ("data", "output", "checkpoint")
    if missing := [f"--{name}" for name in needed if getattr(given, name) is None]:
        parser.error(f"{given.task} needs {', '.join(missing)}")
    return given


def read_config(path: Path) -> dict[str, object]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".toml":
        return json.loads(text)
    import tomllib  # of Python 3.11

    return tomllib.loads(text)


def progress_bar(title: str, is_shown: bool) -> Callable[[int, int], None]:
    """Shows how many of how many are done."""
    from tqdm import tqdm

    bars = []

    def show(done: int, total: int) -> None:
        if not bars:  # a training that goes on begins in the middle
            bars.append(tqdm(desc=title, total=total, initial=done - 1, disable=not is_shown))
        bars[0].update(done - bars[0].n)

    return show


def check(given: argparse.Namespace) -> int:
    """Reads the whole set, names every fault, and returns 1 where there is one."""
    from ..fpga_core.training.data.reading import TrainingSet, faults

    data = TrainingSet(given.data, given.multiple)
    found = list(faults(data, progress_bar("checking", is_shown=True)))
    print("\n".join([*found, f"{len(data)} samples of {data.extent}, {len(found)} that cannot be used"]))
    return min(len(found), 1)


def launch_processes(given: argparse.Namespace, arguments: list[str]) -> int:
    """Starts this program again, in as many processes, by `accelerate launch`."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(given.num_processes), "--mixed_precision", given.precision]
    command += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command += [str(ROOT / "devtools" / "launch.py"), __spec__.name if __spec__ else __name__, *arguments]
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # which the launcher passes on
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the processes were interrupted too, and save their state


def run(given: argparse.Namespace) -> int:
    """Trains in this process; 130 where it was stopped."""
    import torch

    from ..fpga_core.training.engine.processes import start_processes
    from ..fpga_core.training.engine.settings import Precision, TrainingSettings

    iterations = given.iterations or given.landmarks + given.skeleton + given.both
    fields = {field.name for field in dataclasses.fields(TrainingSettings)} & vars(given).keys()
    values = {**{name: getattr(given, name) for name in fields}, "iterations": iterations}
    settings = TrainingSettings(**{**values, "precision": Precision(given.precision)})
    accelerator = start_processes(settings.precision, use_cpu=not torch.cuda.is_available())  # before ComfyUI
    import_comfyui()
    from ..fpga_core.training.comfy.run import Task, TrainingPlan, run_training
    from ..fpga_core.training.engine.loop import Hooks
    from ..fpga_core.training.method.curriculum import Curriculum
    from ..fpga_core.training.method.fusion import MultiModeFusion

    fusion = MultiModeFusion(given.landmarks, given.skeleton, given.both, given.clone_every, given.single_share)
    plan = TrainingPlan(
        Task(given.task),
        settings,
        Curriculum(fusion),
        given.with_identity,
        given.identity_dim,
        given.gradient_checkpointing,
        getattr(torch, given.save_dtype),
    )
    is_main = accelerator.is_main_process
    show = progress_bar("training", is_main)
    outcome = run_training(
        plan,
        load_models(given),
        given.data,
        given.output,
        accelerator,
        given.cache or given.output / "encodings",
        Hooks(report=lambda line: show(int(line["iteration"]) + 1, iterations)),
        progress_bar("encoding", is_main),
        start=given.start_from,
    )
    accelerator.end_training()
    if is_main and outcome.was_stopped:
        print(f"stopped after iteration {outcome.iterations}; run it again to go on")
    elif is_main:
        print("\n".join(["trained:", *map(str, outcome.files)]))
    return 130 if outcome.was_stopped else 0


def load_models(given: argparse.Namespace):
    """The frozen models of the given files."""
    import comfy.clip_vision
    import comfy.sd
    import comfy.utils

    from ..fpga_core.checkpoints import read_safetensors
    from ..fpga_core.faces.insightface_pack import load_insightface_pack
    from ..fpga_core.patching.clip_vision import ClipVisionEncoder
    from ..fpga_core.repcontrolnet.layouts import read_repcontrolnet
    from ..fpga_core.training.comfy.run import FrozenModels

    if given.custom_node is not None:
        runpy.run_path(str(given.custom_node / "__init__.py"))
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(given.checkpoint))
    if given.vae is not None:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(given.vae)))
    analysis = None if given.face_analysis is None else load_insightface_pack(given.face_analysis)
    vision = None
    if given.clip_vision is not None:
        vision = ClipVisionEncoder(comfy.clip_vision.load(str(given.clip_vision)))
    branch = None
    if given.repcontrolnet is not None:
        branch = read_repcontrolnet(*read_safetensors(given.repcontrolnet), name=given.repcontrolnet.name)
    return FrozenModels(model, clip, vae, analysis, vision, branch)


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    if given.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        if given.task == CHECK:
            return check(given)
        if given.num_processes > 1 and "LOCAL_RANK" not in os.environ:
            return launch_processes(given, arguments)
        return run(given)
    except FPGAError as error:
        sys.exit(f"dev.py train: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
