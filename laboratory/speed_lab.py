"""`dev.py world evaluate speed`: the paper's Table 5, the cost of each form of FPGA in time and parameters."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from ..fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
from ..fpga_core.patching.unet import unet_of
from .generation_lab import controlnet_way, shipped_way, ways_of
from .laboratory import NEGATIVE, STEPS, Laboratory, Way
from .scenes import Shot

NUM_ROUNDS = 7


def evaluate_speed(folder: Path) -> str:
    """Measures the time of a picture against the plain base's, and parameters. Each round runs all forms in turn."""
    lab, shipped = Laboratory(), shipped_way()
    control = ways_of({"ControlNet form": lambda: controlnet_way(folder / "controlnet")})
    (case,) = lab.cases(Shot.HALF, 1)
    assert shipped.branch is not None
    base = sum(parameter.numel() for parameter in unet_of(lab.model).parameters())
    hint_encoder = sum(tensor.numel() for tensor in shipped.branch.hint_encoder.values())
    copies = sum(tensor.numel() for tensor in shipped.branch.weights.values())

    def live() -> None:
        texts = lab.encode(case.scene.caption), lab.encode(NEGATIVE)
        applied = apply_repcontrolnet(
            lab.model,
            *texts,
            branch=shipped.branch,
            image=case.condition(),
            settings=RepControlNetSettings(mode=BranchMode.LIVE),
        )
        lab.sample(applied.model, applied.positive, applied.negative, 0)

    def generated(way: Way) -> Callable[[], None]:
        return lambda: list(lab.generate(way, [case])) and None

    forms: dict[str, tuple[Callable[[], None], int]] = {
        "base": (generated(Way()), base),
        "RepControlNet folded": (generated(Way(branch=shipped.branch)), base + hint_encoder),
        "RepControlNet folded, with an identity": (generated(shipped), base + hint_encoder),
        "RepControlNet live": (live, base + copies + hint_encoder),
    }
    for name, way in control.items():
        assert way.control_net is not None
        added = sum(parameter.numel() for parameter in way.control_net.control_model.parameters())
        forms[f"{name}, with an identity"] = generated(way), base + added
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(NUM_ROUNDS + 1):
        for name, (run, _) in forms.items():
            began = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    lines = ["| form | picture of 25 steps, s | over the base | parameters, M |", "|---|---|---|---|"]
    for name, (_, parameters) in forms.items():
        ratios = sorted(one / plain for one, plain in zip(seconds[name], seconds["base"], strict=True))
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        lines.append(f"| {name} | {median(seconds[name]):.2f} | {spread} | {parameters / 1e6:.2f} |")
    threads = torch.get_num_threads()
    return "\n".join(
        [*lines, "", f"{NUM_ROUNDS} rounds, {STEPS} steps, {threads} thread{'s' * (threads > 1)}, with decoding."]
    )
