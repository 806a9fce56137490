"""`dev.py world train trials`: short trainings that differ in one choice each, to compare the choices.

They all run on the pack's own engine, with the same samples in the same order, for 500 iterations that show skeleton
and landmarks together, without Clone Face Tuning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher

from ..fpga_core.training.comfy.encoding import ComfyEncoder
from ..fpga_core.training.comfy.repcontrolnet import RepControlNetTraining
from ..fpga_core.training.data.encoded_set import EncodedSet
from ..fpga_core.training.data.encodings import EncodingStore
from ..fpga_core.training.data.face_encoding import FaceEncoder
from ..fpga_core.training.data.reading import TrainingSet
from ..fpga_core.training.engine.loop import train
from ..fpga_core.training.engine.processes import start_processes
from ..fpga_core.training.engine.settings import Precision, TrainingSettings
from ..fpga_core.training.method.curriculum import Curriculum
from ..fpga_core.training.method.folded_branch import TrainedPart
from ..fpga_core.training.method.fusion import MultiModeFusion
from ..fpga_core.training.method.identity_network import IdentityRecipe, Projections
from .shipped import load_checkpoint
from .train import IDENTITY_DIM

SETTINGS = TrainingSettings(
    iterations=500,
    batch_size=16,
    learning_rate=2e-4,
    new_layers_factor=5.0,
    warmup=20,
    cooldown=150,
    ema_decay=0.98,
    checkpoint_every=100,
    num_checkpoints=1,
    precision=Precision.BFLOAT16,
)
TRIALS_FOLDER = "trials"
"""In the work folder, and the name of the stage that fills it."""
MULTIPLE_PX = 32
"""The sides of pictures are multiples of this number, so that the UNet can halve their latents twice."""
CURRICULUM = Curriculum(MultiModeFusion(num_landmarks=0, num_skeleton=0, num_both=500, clone_every=0))


@dataclass(frozen=True)
class Trial:
    """The choices of one trial.

    Attributes:
        part: the part of the branch that is trained; NONE: there is no branch.
        projections: the projections that read the identity's tokens.
        ratio: w of Eq. 5.
        seed: seed of the first weights, the sample order and all draws.
    """

    part: TrainedPart = TrainedPart.ALL
    projections: Projections = Projections.SHARED
    ratio: float = 0.1
    seed: int = 0

    def start(self, model: ModelPatcher, recogniser: str) -> RepControlNetTraining:
        """Returns the network before its first iteration."""
        recipe = IdentityRecipe(recogniser=recogniser, projections=self.projections, inner_dim=IDENTITY_DIM)
        return RepControlNetTraining.of(
            model,
            CURRICULUM,
            recipe,
            part=self.part,
            ratio=self.ratio,
            dtype=SETTINGS.precision.dtype,
            seed=self.seed,
        )


TRIALS = {
    "w 0.1": Trial(),
    "w 0.1, seed 1": Trial(seed=1),
    "w 0.1, seed 2": Trial(seed=2),
    "w 0.01": Trial(ratio=0.01),
    "w 0.5": Trial(ratio=0.5),
    "w 1": Trial(ratio=1.0),
    "tokens alone, base frozen": Trial(part=TrainedPart.NONE),
    "tokens and the branch's keys and values": Trial(part=TrainedPart.KEYS_VALUES, ratio=0.0),
    "tokens and own projections": Trial(part=TrainedPart.NONE, projections=Projections.OWN),
}


def world_set(folder: Path, recogniser: str, cache: Path) -> EncodedSet:
    """Returns a folder of lessons, encoded by the shipped models."""
    model, clip, vae = load_checkpoint()
    data = TrainingSet(folder, multiple_px=MULTIPLE_PX)
    return EncodedSet(
        data,
        ComfyEncoder(model, clip, vae, faces=FaceEncoder(None, None, stored_recogniser=recogniser)),
        EncodingStore(cache),
    )


def train_trials(folder: Path) -> None:
    """Trains the trials that are not trained yet.

    Args:
        folder: the world's work folder, with `lessons`, `encodings` and `trials`.
    """
    accelerator = start_processes(SETTINGS.precision, use_cpu=not torch.cuda.is_available())
    with torch.inference_mode(False), torch.enable_grad():
        data = TrainingSet(folder / "lessons", multiple_px=MULTIPLE_PX)
        batches = world_set(folder / "lessons", data.recogniser or "", folder / "encodings")
        for name, trial in TRIALS.items():
            model = trial.start(load_checkpoint()[0], data.recogniser or "")
            settings = replace(SETTINGS, seed=trial.seed)
            outcome = train(model, batches, settings, folder=trial_folder(folder, name), accelerator=accelerator)
            if outcome.was_stopped:
                return
            last = [line["loss"] for line in outcome.losses[-50:]]
            print(f"{name}: loss {sum(last) / len(last):.4f} at the end", flush=True)


def trial_folder(folder: Path, name: str) -> Path:
    return folder / TRIALS_FOLDER / name.replace(" ", "_").replace(",", "").replace("'", "")
