"""One step of a full-size SD1.5 at 512x512, guidance's batch of two: bare, with a RepControlNet, with a ControlNet.

All alternatives run in turn in one process, so that a machine that slows down slows all of them. The weights are
random, because they do not change the time. Loading and folding are not part of a step; `dev.py bench fold` measures
them.
"""

import comfy.controlnet
import comfy.model_management
import torch
from _models import SMALL_UNET, random_controlnet, random_model
from _report import arguments, in_turn, ratio_rows, report
from _steps import step_seconds
from fpga.fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from random_branches import random_branch
from unet_configs import SD15_UNET

import nodes


def main() -> None:
    options = arguments(__doc__)
    config, size = (SMALL_UNET, 16) if options.tiny else (SD15_UNET, 64)
    model = random_model(config)
    branch = random_branch(model.model.diffusion_model, dtype=torch.bfloat16)
    picture = torch.rand(1, size * 8, size * 8, 3)
    conditionings = [[[torch.randn(1, 77, 768), {}]] for _ in range(2)]
    noise = torch.randn(1, 4, size, size)
    control = comfy.controlnet.ControlNet(random_controlnet(config), load_device=model.load_device)
    controlled = nodes.ControlNetApplyAdvanced().apply_controlnet(*conditionings, control, picture, 1.0, 0.0, 1.0)

    def with_branch(mode: BranchMode) -> tuple:
        applied = apply_repcontrolnet(
            model, *conditionings, branch=branch, image=picture, settings=RepControlNetSettings(mode=mode)
        )
        return applied.model, applied.positive, applied.negative

    alternatives = {
        "bare UNet": (model, *conditionings),
        "bare UNet again": (model, *conditionings),  # shows how reliable the ratios are
        "RepControlNet folded": with_branch(BranchMode.FOLDED),
        "ControlNet": (model, *controlled),
        "RepControlNet live": with_branch(BranchMode.LIVE),
    }
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for run in alternatives.values():  # a warm-up each
        step_seconds(*run, noise)
    for name in in_turn(alternatives, options.rounds):
        seconds[name].append(step_seconds(*alternatives[name], noise)[0])
    rows = ratio_rows(seconds, "bare UNet")
    report(f"A step at {size * 8}x{size * 8}, bfloat16, {torch.get_num_threads()} threads", rows, options.json)


if __name__ == "__main__":
    main()
