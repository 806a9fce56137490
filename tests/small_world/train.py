"""`dev.py world train [STAGE ...]`: trains the small world's models, each stage a gate for the next; resumable.

Without a stage, all of them in their order. Pictures, checkpoints and logs lie in the cache; what is shipped lies in
`tests/small_world/weights`, written by the last stage.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from ...devtools.environment import cache_folder
from ...devtools.launch import import_comfyui

NUM_PICTURES = 16000
BRANCH_OPTIONS = (
    "--landmarks", "300", "--skeleton", "300", "--both", "1000", "--batch-size", "32", "--learning-rate", "4e-4",
    "--ema-decay", "0.995", "--checkpoint-every", "100",
)  # fmt: skip
"""Multi-Mode Fusion's three stages, shorter than the paper's by the size of the world."""
MIN_VERIFICATION = 0.99
"""The recogniser's gate: how often held-out people must be told apart."""


def work_folder() -> Path:
    """Where pictures, checkpoints and logs are kept, outside the checkout."""
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
        raise SystemExit(f"the recogniser tells held-out people apart in {figures['auc']:.3f} of all cases: train more")
    export_recogniser(recogniser, work_folder() / "recogniser.onnx")


def train_detector() -> None:
    from .detector import export_pack, train_detector, train_landmarks
    from .gallery import gallery

    pictures = gallery(work_folder() / "pictures", NUM_PICTURES)
    detector = train_detector(pictures, work_folder() / "detector.pt")
    export_pack(detector, train_landmarks(pictures, work_folder() / "landmarks.pt"), work_folder() / "pack")


def train_base() -> None:
    from .autoencoder import train_autoencoder
    from .base import train_base, write_checkpoint
    from .gallery import gallery

    pictures = gallery(work_folder() / "pictures", NUM_PICTURES)
    autoencoder = train_autoencoder(pictures, work_folder())
    base = train_base(autoencoder, pictures, work_folder() / "base.pt")
    write_checkpoint(base, autoencoder, work_folder() / "checkpoint.safetensors")


def train_autoencoder() -> None:
    from .autoencoder import train_autoencoder
    from .gallery import gallery

    train_autoencoder(gallery(work_folder() / "pictures", NUM_PICTURES), work_folder())


def write_lessons() -> None:
    from .lessons import write_lessons

    folder = work_folder()
    write_lessons(folder / "lessons", folder / "pictures", NUM_PICTURES, folder / "recogniser.onnx")


def train_branch() -> None:
    """RepControlNet and identity together, by the pack's own trainer: `dev.py train repcontrolnet --with-identity`."""
    from ...devtools.train import main as train
    from .shipped import COMFYUI_NODE

    folder = work_folder()
    files = {
        "--checkpoint": folder / "checkpoint.safetensors",
        "--custom-node": COMFYUI_NODE,
        "--data": folder / "lessons",
        "--output": folder / "branch",
    }
    train(
        ["repcontrolnet", "--with-identity", *BRANCH_OPTIONS, *(str(word) for pair in files.items() for word in pair)]
    )


def ship() -> None:
    """Copies what is trained into the repository, with the figures of the training beside it."""
    from .shipped import BRANCH, CHECKPOINT, FACE_PACK, IDENTITY_ADAPTER, RECOGNISER, WEIGHTS

    folder = work_folder()
    files = {CHECKPOINT: folder / "checkpoint.safetensors", RECOGNISER: folder / "recogniser.onnx"}
    files |= {FACE_PACK / file.name: file for file in (folder / "pack").glob("*.onnx")}
    trained = {BRANCH: "repcontrolnet.safetensors", IDENTITY_ADAPTER: "identity_adapter.safetensors"}
    files |= {target: folder / "branch" / name for target, name in trained.items()}
    FACE_PACK.mkdir(parents=True, exist_ok=True)
    for target, source in files.items():
        shutil.copy(source, target)
    logs = {
        log.stem: [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for log in sorted(folder.glob("*.jsonl"))
    }
    figures = {name: rows[:: max(1, len(rows) // 20)] + rows[-1:] for name, rows in logs.items()}
    figures["recogniser, held-out people"] = json.loads((folder / "recogniser.json").read_text(encoding="utf-8"))
    lines = (f" {json.dumps(name)}: {json.dumps(rows)}" for name, rows in figures.items())
    (WEIGHTS / "training.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


STAGES = {
    "recogniser": train_recogniser,
    "detector": train_detector,
    "autoencoder": train_autoencoder,
    "base": train_base,
    "lessons": write_lessons,
    "branch": train_branch,
    "ship": ship,
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="dev.py world train", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all when none is named")
    stages = parser.parse_args(arguments).stages or list(STAGES)
    if unknown := [stage for stage in stages if stage not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}: choose of {', '.join(STAGES)}")
    import_comfyui()
    for stage in stages:
        STAGES[stage]()
