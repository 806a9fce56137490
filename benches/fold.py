"""Folding a RepControlNet into a full-size SD1.5: its time beside a plain copy of the same bytes, and the memory it takes.

The fold is what ComfyUI does when the patched model is loaded: every weight is kept as a backup, computed, and put in place.
"""

import gc

import comfy.model_management
import torch
from _models import TINY_UNET, random_model
from _report import arguments, interleaved, report
from _resident import resident_bytes
from fpga.fpga_core.patching.fold import fold_branch
from random_branches import random_branch


def main() -> None:
    options = arguments(__doc__)
    dtype = torch.float16
    model = random_model(TINY_UNET if options.tiny else None, dtype=dtype)
    unet = model.model.diffusion_model
    branch = random_branch(unet, dtype=dtype)
    num_bytes = sum(weight.nbytes for weight in branch.weights.values())
    folded = fold_branch(model, branch)

    def fold() -> None:
        comfy.model_management.load_models_gpu([folded], force_full_load=True)

    def unfold() -> None:
        comfy.model_management.unload_all_models()

    def copy() -> list[torch.Tensor]:
        return [weight.clone() for weight in unet.parameters()]

    gc.collect()
    before = resident_bytes()
    fold()
    gc.collect()
    during = resident_bytes() - before
    unfold()
    gc.collect()
    after = resident_bytes() - before

    def fold_and_unfold() -> None:
        fold()
        unfold()

    seconds = interleaved(
        {"plain copy": copy, "fold": fold, "unfold": unfold, "bare load and unload": lambda: None}, options.rounds
    )
    rows = []
    report("x", rows, options.json)


if __name__ == "__main__":
    main()
