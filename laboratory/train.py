"""`dev.py world train [STAGE ...]`: trains the small world's models in stages. A stopped stage resumes.

Without arguments, it runs all stages that lead to the shipped weights, in order. Pictures, checkpoints and logs are
kept in the cache. The stages `ship_base` and `ship_branch` write the shipped weights to `laboratory/weights`, and later
stages train on the shipped base.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..commands import INTERRUPTED
from ..commands.comfyui import import_comfyui
from ..devtools.environment import cache_folder
from ..fpga_core.training.engine.loss_log import FILE as LOG_FILE

if TYPE_CHECKING:
    from .gallery import Gallery

NUM_PICTURES = 16000
NUM_SCENES, NUM_CROPS = 32000, 12000
"""The lessons: scenes as they are, and face crops as Restore Faces makes them."""
IDENTITY_DIM = 384
NUM_BEFORE_CLONES, NUM_OF_CONTROLNET, NUM_BEFORE_END, NUM_OF_BRANCH = 800, 1200, 2400, 4800
LESSONS = "lessons"
EXPORTED = "repcontrolnet.safetensors", "identity_adapter.safetensors"
"""What the trainer calls its results."""
AUTOENCODER_FILE, CHECKPOINT_FILE = "autoencoder.safetensors", "checkpoint.safetensors"
NETWORK_OPTIONS = (
    "--with-identity", "--landmarks", "400", "--skeleton", str(NUM_BEFORE_CLONES - 400),
    "--both", str(NUM_BEFORE_END - NUM_BEFORE_CLONES), "--batch-size", "64", "--learning-rate", "4e-4",
    "--warmup", "50", "--ema-decay", "0.998", "--precision", "no", "--checkpoint-every", "400",
    "--num-checkpoints", "6", "--sample-every", "400", "--save-dtype", "float16", "--identity-dim", str(IDENTITY_DIM),
)  # fmt: skip
"""The three stages of Multi-Mode Fusion, shorter than the paper's, as the world is small."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that the pack's own trainer trains on the lessons, on the shipped base.

    Attributes:
        task: the trainer's task.
        begins_after: the network, and its iteration, that this training continues; None: it starts anew.
        begins_with_files_of: the network whose exported files it starts from, with a new optimiser and learning rate.
        options: options of the trainer in addition to NETWORK_OPTIONS.
    """

    task: str = "repcontrolnet"
    begins_after: tuple[str, int] | None = None
    begins_with_files_of: str | None = None
    options: tuple[str, ...] = ()


BRANCH_OPTIONS = ("--single-share", "0.2", "--face-weight", "2", "--both", str(NUM_OF_BRANCH - NUM_BEFORE_CLONES))
NETWORKS = {
    "stages": Network(),
    "branch": Network(begins_after=("stages", NUM_BEFORE_END), options=(*BRANCH_OPTIONS, "--cooldown", "1100")),
    "longer": Network(
        begins_with_files_of="branch",
        options=(
            *("--landmarks", "0", "--skeleton", "0", "--both", "4200", "--single-share", "0.2", "--face-weight", "2"),
            *("--batch-size", "64", "--learning-rate", "3e-4", "--cooldown", "3300"),
        ),
    ),
    "without_clones": Network(begins_after=("stages", NUM_BEFORE_CLONES), options=("--clone-every", "0")),
    "controlnet": Network(task="controlnet", options=("--iterations", str(NUM_OF_CONTROLNET))),
    "controlnet_without_clones": Network(
        task="controlnet",
        begins_after=("controlnet", NUM_BEFORE_CLONES),
        options=("--iterations", str(NUM_OF_CONTROLNET), "--clone-every", "0"),
    ),
    "as_long_as_controlnet": Network(
        begins_after=("stages", NUM_OF_CONTROLNET), options=("--iterations", str(NUM_OF_CONTROLNET))
    ),
}
SHIPPED_NETWORK = "longer"
MIN_VERIFICATION = 0.99
"""How often the recogniser must tell held-out people apart before training can continue."""


def work_folder() -> Path:
    """Returns the folder for pictures, checkpoints and logs, which is outside the checkout."""
    folder = cache_folder() / "world"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_recogniser() -> None:
    from .recogniser import export_recogniser, train_recogniser, verification

    recogniser = train_recogniser(work_folder())
    figures = verification(recogniser, work_folder())
    (work_folder() / "recogniser.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"recogniser, held-out people: {figures}", flush=True)
    if figures["auc"] < MIN_VERIFICATION:
        raise SystemExit(
            f"the recogniser tells held-out people apart in {figures['auc']:.3f} of all cases; train it longer"
        )
    export_recogniser(recogniser, work_folder() / "recogniser.onnx")


def train_detector() -> None:
    from .autoencoder import read_autoencoder, through_autoencoder
    from .detector import export_pack, train_detector, train_landmarks
    from .gallery import gallery

    folder = work_folder()
    pictures = gallery(folder / "pictures", NUM_PICTURES)
    broken = through_autoencoder(read_autoencoder(folder / AUTOENCODER_FILE), pictures.pictures)
    detector = train_detector(pictures, broken, folder / "detector.pt")
    export_pack(detector, train_landmarks(pictures, broken, folder / "landmarks.pt"), folder / "pack")


def train_autoencoder() -> None:
    from .autoencoder import train_autoencoder, write_autoencoder
    from .gallery import gallery

    folder = work_folder()
    autoencoder = train_autoencoder(gallery(folder / "pictures", NUM_PICTURES), folder)
    write_autoencoder(autoencoder, folder / AUTOENCODER_FILE)


def train_base() -> None:
    """Trains the base on the latents of the lessons, and joins it with the autoencoder to a checkpoint."""
    from .autoencoder import read_autoencoder
    from .base import train_base, write_checkpoint

    folder = work_folder()
    autoencoder = read_autoencoder(folder / AUTOENCODER_FILE)
    base = train_base(autoencoder, folder / LESSONS, folder / "base.pt")
    write_checkpoint(base, autoencoder, folder / CHECKPOINT_FILE)


def train_reader() -> None:
    from .gallery import gallery
    from .reader import export_reader, held_out_accuracy, train_reader

    folder = work_folder()
    reader = train_reader(gallery(folder / "pictures", NUM_PICTURES), folder / "reader.pt")
    export_reader(reader, folder / "reader.onnx")
    figures = held_out_accuracy(folder / "reader.onnx", folder / "pictures")
    (folder / "reader.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"reader, held-out pictures: {figures}", flush=True)


def galleries() -> tuple[Gallery, Gallery]:
    """Returns the pictures of the lessons: of one person and of groups, and face crops as Restore Faces makes them."""
    from .gallery import crop_number, gallery

    folder = work_folder()
    return gallery(folder / "scenes", NUM_SCENES), gallery(folder / "crops", NUM_CROPS, scene_of=crop_number)


def write_lessons() -> None:
    from .lessons import lessons, write_set
    from .shipped import RECOGNISER

    folder = work_folder()
    scenes, crops = galleries()
    write_set(
        folder / LESSONS,
        RECOGNISER,
        lambda recogniser: chain(lessons(scenes, recogniser), lessons(crops, recogniser, keys="crop")),
    )


def train_network(name: str) -> None:
    """Trains control and identity together, with `fpga-portrait train`; on a GPU, the lessons are kept there."""
    from ..commands import main as fpga_portrait
    from .loop import DEVICE, fastest_attention
    from .shipped import CHECKPOINT, COMFYUI_NODE, RECOGNISER

    folder = work_folder()
    network = NETWORKS[name]
    files = {
        "--checkpoint": CHECKPOINT,
        "--custom-node": COMFYUI_NODE,
        "--data": folder / LESSONS,
        "--output": folder / name,
        "--cache": folder / "encodings",
    }
    if network.begins_with_files_of is not None:
        branch, adapter = (folder / network.begins_with_files_of / name for name in EXPORTED)
        files |= {"--repcontrolnet": branch, "--identity-adapter": adapter}
    if network.begins_after is not None:
        other, iteration = network.begins_after
        files["--start-from"] = folder / other / f"checkpoint-{iteration:08}.pt"
    words = [network.task, *NETWORK_OPTIONS, *network.options, *(str(word) for pair in files.items() for word in pair)]
    if DEVICE.type == "cuda":
        from .device_lessons import train_on_device
        from .lessons import WorldRecogniser

        if train_on_device(words, galleries(), WorldRecogniser(RECOGNISER)).was_stopped:
            sys.exit(INTERRUPTED)
        return
    with fastest_attention():
        if status := fpga_portrait(["train", *words]):
            sys.exit(status)


def train_trials() -> None:
    from .trials import train_trials

    train_trials(work_folder())


def ship_faces() -> None:
    """Copies the recogniser, the detector and the reader into the repository. Lessons come from this recogniser."""
    from .shipped import FACE_PACK, READER, RECOGNISER

    folder = work_folder()
    FACE_PACK.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "recogniser.onnx", RECOGNISER)
    shutil.copy(folder / "reader.onnx", READER)
    for file in (folder / "pack").glob("*.onnx"):
        shutil.copy(file, FACE_PACK / file.name)


def ship_base() -> None:
    """Copies the base into the repository, with the figures of all trainings so far."""
    from .shipped import CHECKPOINT, WEIGHTS

    folder = work_folder()
    shutil.copy(folder / CHECKPOINT_FILE, CHECKPOINT)
    figures = {log.stem: excerpt(log) for log in sorted(folder.glob("*.jsonl"))}
    figures["recogniser, held-out people"] = json.loads((folder / "recogniser.json").read_text(encoding="utf-8"))
    figures["reader, held-out pictures"] = json.loads((folder / "reader.json").read_text(encoding="utf-8"))
    write_figures(WEIGHTS / "training.json", figures)


def ship_branch() -> None:
    """Writes the branch and its identity adapter into the repository, with the figures of their training."""
    from .shipped import BRANCH, IDENTITY_ADAPTER, WEIGHTS
    from .shipped_weights import ship

    branch, adapter = (work_folder() / SHIPPED_NETWORK / name for name in EXPORTED)
    ship(branch, adapter, to=(BRANCH, IDENTITY_ADAPTER))
    networks = {name: NETWORKS[name].options for name in ("stages", "branch", SHIPPED_NETWORK)}
    losses = {f"losses of {name}": excerpt(work_folder() / name / LOG_FILE) for name in ("branch", SHIPPED_NETWORK)}
    write_figures(WEIGHTS / "training_branch.json", {"all": NETWORK_OPTIONS, **networks, **losses})


def excerpt(log: Path) -> list[dict[str, float]]:
    """Returns about twenty lines of a log, and its last line."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return rows[:: max(1, len(rows) // 20)] + rows[-1:]


def write_figures(file: Path, figures: Mapping[str, object]) -> None:
    lines = (f" {json.dumps(name)}: {json.dumps(rows)}" for name, rows in figures.items())
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


STAGES: dict[str, Callable[[], None]] = {
    "recogniser": train_recogniser,
    "reader": train_reader,
    "autoencoder": train_autoencoder,
    "detector": train_detector,
    "ship_faces": ship_faces,
    "lessons": write_lessons,
    "base": train_base,
    "ship_base": ship_base,
    "stages": lambda: train_network("stages"),
    "branch": lambda: train_network("branch"),
    "longer": lambda: train_network("longer"),
    "ship_branch": ship_branch,
    "without_clones": lambda: train_network("without_clones"),
    "controlnet": lambda: train_network("controlnet"),
    "controlnet_without_clones": lambda: train_network("controlnet_without_clones"),
    "as_long_as_controlnet": lambda: train_network("as_long_as_controlnet"),
    "trials": train_trials,
}
RECIPE_STAGES = tuple(STAGES)[: tuple(STAGES).index("ship_branch") + 1]
"""The stages that lead to the shipped weights. The laboratory's other networks are trained only if they are named."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="dev.py world train", description=__doc__)
    parser.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help=f"of {', '.join(STAGES)}; default: all stages that lead to the shipped weights",
    )
    stages = parser.parse_args(arguments).stages or RECIPE_STAGES
    if unknown := [stage for stage in stages if stage not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}: choose from {', '.join(STAGES)}")
    import_comfyui()
    for stage in stages:
        STAGES[stage]()
