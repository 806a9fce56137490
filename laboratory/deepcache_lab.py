"""`dev.py world evaluate deepcache`: what DeepCache saves and what it loses, on held-out people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..fpga_core.acceleration.deepcache import DeepCacheSettings
from ..fpga_core.patching.acceleration.deepcache import apply_deepcache
from .generation_lab import measured, shipped_way
from .laboratory import STEPS, Laboratory, save_pictures
from .scenes import Shot
from .tables import FACESIM, POSE_ERROR, markdown

NUM_PEOPLE = 48
PLAIN = "every step full"
SETTINGS = {
    f"interval {interval}, branch {branch}": DeepCacheSettings(interval=interval, branch=branch)
    for interval, branch in ((2, 0), (3, 0), (3, 1), (3, 2), (5, 1))
}


def evaluate_deepcache(folder: Path) -> str:
    """Measures the shipped models, folded and with an identity, one person a picture; each round runs all forms."""
    lab, way = Laboratory(), shipped_way()
    folded = lab.folded(way)
    cases = lab.cases(Shot.HALF, NUM_PEOPLE)
    models = {PLAIN: folded} | {name: apply_deepcache(folded, settings) for name, settings in SETTINGS.items()}
    pictures: dict[str, list[Tensor]] = {name: [] for name in models}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for case in (cases[0], *cases):  # the first is run again: it warms up
        for name, model in models.items():
            began = time.perf_counter()
            pictures[name].append(lab.sample(*lab.conditioned(way, case, model), seed=case.number))
            seconds[name].append(time.perf_counter() - began)
    pictures = {name: row[1:] for name, row in pictures.items()}
    save_pictures(folder / "tables" / "deepcache.jpg", pictures)
    rows = measured(lab, cases, pictures)
    return (
        markdown(
            rows,
            lambda name: {"times faster, with decoding": faster(seconds, name)},
            references=dict.fromkeys(rows, PLAIN),
            compared=(FACESIM, POSE_ERROR),
        )
        + f"\n\n{STEPS} steps, {torch.get_num_threads()} threads, all forms in turn for each picture."
    )


def faster(seconds: Mapping[str, Sequence[float]], name: str) -> str:
    """Returns the median of how many times faster a form is than every step full, over the pictures but the first."""
    return f"{median(base / one for base, one in zip(seconds[PLAIN][1:], seconds[name][1:], strict=True)):.2f}"
