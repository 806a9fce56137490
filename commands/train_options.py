"""The options of `fpga-portrait train`, on the command line and in a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..fpga_core.training.engine.optimizers import OptimizerKind
from ..fpga_core.training.engine.processes import Tracker
from ..fpga_core.training.engine.settings import Precision, Schedule, TrainingSettings

DESCRIPTION = """
    fpga-portrait train repcontrolnet --checkpoint FILE --data FOLDER --output FOLDER [options]
    fpga-portrait train identity      --checkpoint FILE --data FOLDER --output FOLDER --face-analysis FOLDER [options]
    fpga-portrait train controlnet    --checkpoint FILE --data FOLDER --output FOLDER [options]
    fpga-portrait train check         --data FOLDER

The same command resumes a training that was stopped.
"""
CHECK = "check"
TASKS = ("repcontrolnet", "identity", "controlnet")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fpga-portrait train",
        usage="fpga-portrait train TASK --data FOLDER [options]",
        description=DESCRIPTION,
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
    stages.add_argument(
        "--min-snr-gamma",
        type=float,
        default=0.0,
        help="min-SNR weighting of the loss with this gamma, usually 5; 0: none",
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
    schedules = [schedule.value for schedule in Schedule]
    engine.add_argument(
        "--schedule", choices=schedules, default=default.schedule.value, help="of the learning rate after the warm-up"
    )
    engine.add_argument(
        "--rates",
        type=rates,
        default=default.rates,
        metavar="PART=RATE,...",
        help="learning rates of single parts, for example branch=1e-4,identity=5e-5",
    )
    optimizers = [kind.value for kind in OptimizerKind]
    engine.add_argument(
        "--optimizer",
        choices=optimizers,
        default=default.optimizer.value,
        help="adamw-8bit needs bitsandbytes and a quarter of the memory for its moments",
    )
    engine.add_argument("--ema-decay", type=float, default=default.ema_decay)
    engine.add_argument(
        "--ema-on-cpu", dest="is_average_on_cpu", action="store_true", help="keep the running mean in CPU memory"
    )
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
    engine.add_argument(
        "--held-out", type=int, default=default.held_out, help="samples that are not trained on, for the validation"
    )
    engine.add_argument(
        "--validate-every",
        type=int,
        default=default.validate_every,
        help="iterations between losses on the samples held out; 0: none",
    )
    trackers = [tracker.value for tracker in Tracker]
    engine.add_argument("--tracker", choices=trackers, help="also write the losses for this program")
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


def rates(text: str) -> tuple[tuple[str, float], ...]:
    """Reads `part=rate,...`; argparse names what it cannot read."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return tuple((part.strip(), float(rate)) for part, _, rate in pairs)


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
