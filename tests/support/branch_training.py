"""Three iterations of a small branch with identity, in one process or several: `branch_training.py JSON`."""

import json
import runpy
import sys
from pathlib import Path

from accelerate import Accelerator

if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)  # before ComfyUI, which looks for the GPU
    launch = Path(__file__).resolve().parents[2] / "devtools" / "launch.py"
    runpy.run_path(str(launch))["register_pack"]()
    from fpga.commands.comfyui import import_comfyui

    import_comfyui()

from fpga.fpga_core.training.comfy.repcontrolnet import RepControlNetTraining
from fpga.fpga_core.training.engine.loop import train
from fpga.fpga_core.training.engine.settings import TrainingSettings
from fpga.fpga_core.training.method.curriculum import Curriculum
from fpga.fpga_core.training.method.fusion import MultiModeFusion
from fpga.fpga_core.training.method.identity_network import IdentityRecipe
from tiny_models import tiny_model
from training_batches import tiny_batch
from training_runs import RECOGNISER


class TinyBatches:
    fingerprint = "tiny"

    def __len__(self):
        return 5

    def batch(self, indices):
        return tiny_batch(len(indices), seed=indices[0])


def main(folder: str, **settings) -> None:
    curriculum = Curriculum(MultiModeFusion(1, 0, 9, clone_every=2))
    training = RepControlNetTraining.of(
        tiny_model(), curriculum, IdentityRecipe(recogniser=RECOGNISER), is_checkpointed=True
    )
    train(
        training,
        TinyBatches(),
        TrainingSettings(iterations=3, checkpoint_every=1, num_checkpoints=3, **settings),
        folder=Path(folder),
        accelerator=accelerator,
    )


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
