"""Time and memory of folding a RepControlNet into a full-size SD1.5, compared with a plain copy of the same bytes.

ComfyUI folds when it loads the patched model: it keeps each weight as a backup, computes the new one, and puts it in
place. The time to load the same model without patches is subtracted.
"""

import time

import comfy.model_management
import torch
from _models import SMALL_UNET, random_model
from _report import arguments, report, resident_mib
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from random_branches import random_branch
from unet_configs import SD15_UNET

MIB = 2**20


def seconds_of(run) -> float:
    began = time.perf_counter()
    kept = run()
    elapsed = time.perf_counter() - began
    del kept
    return elapsed


def load(model) -> None:
    comfy.model_management.load_models_gpu([model], force_full_load=True)


def measure(dtype: torch.dtype, config: dict, rounds: int) -> dict:
    at_start = resident_mib()
    model = random_model(config, dtype)
    parameters = list(model.model.diffusion_model.parameters())
    branch = random_branch(model.model.diffusion_model, dtype=dtype)
    with_both = resident_mib()
    num_mib = sum(parameter.nbytes for parameter in parameters) / MIB
    branch_mib = sum(weight.nbytes for weight in branch.weights.values()) / MIB

    folded = fold_branch(model, branch)
    ratios, seconds, copies, peak = [], [], [], 0.0
    for _ in range(rounds + 1):  # the first is a warm-up
        copy = seconds_of(lambda: [parameter.clone() for parameter in parameters])
        bare = seconds_of(lambda: load(model))
        comfy.model_management.unload_all_models()
        fold = seconds_of(lambda: load(folded)) - bare
        peak = max(peak, resident_mib())
        comfy.model_management.unload_all_models()
        ratios.append(fold / copy)
        seconds.append(fold)
        copies.append(copy)
    after = resident_mib()
    extra = peak - (with_both - branch_mib)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "weights MiB": round(num_mib),
        "copy s": round(sorted(copies[1:])[rounds // 2], 2),
        "fold s": round(sorted(seconds[1:])[rounds // 2], 2),
        "fold / copy": round(sorted(ratios[1:])[rounds // 2], 2),
        "least": round(min(ratios[1:]), 2),
        "largest": round(max(ratios[1:]), 2),
        "branch MiB": round(branch_mib),
        "extra MiB, branch included": round(extra),
        "over branch + one copy": round(extra / (branch_mib + num_mib), 3),
        "left after unloading MiB": round(after - with_both),
        "before MiB": round(at_start),
    }


def main() -> None:
    options = arguments(__doc__)
    config = SMALL_UNET if options.tiny else SD15_UNET
    rows = [measure(dtype, config, options.rounds) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    report("Folding a RepControlNet into SD1.5's UNet", rows, options.json)


if __name__ == "__main__":
    main()
