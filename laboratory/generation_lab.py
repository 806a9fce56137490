"""`dev.py world evaluate portraits groups weights`: the paper's Tables 1, 3, 6 and its Eq. 6, on held-out people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import comfy.controlnet
import numpy as np
from torch import Tensor

from ..fpga_core.checkpoints import read_safetensors
from ..fpga_core.evaluation.frechet import frechet_distance
from ..fpga_core.evaluation.table import FACESIM, Rows, markdown, paired
from ..fpga_core.faces.drawing import DrawnParts
from ..fpga_core.identity.adapter_layouts import read_identity_adapter
from ..fpga_core.repcontrolnet.layouts import read_repcontrolnet
from ..fpga_core.training.method.output_files import CONTROLNET_FILE, IDENTITY_FILE
from .laboratory import Case, Laboratory, Way, as_bytes, save_pictures
from .scenes import Shot
from .shipped import BRANCH, IDENTITY_ADAPTER
from .tables import POSE_ERROR
from .training_lab import present, read_way
from .trials import TRIALS_FOLDER, trial_folder

NUM_PORTRAITS, NUM_GROUPS, NUM_SWEPT = 64, 48, 16
WITH_CLONES, WITHOUT_CLONES = "with clones", "without clones"
PAINTED, CEILING = "true pictures", "true pictures through the autoencoder"
SHIPPED = "FPGA, RepControlNet folded"
NUM_RESAMPLES = 20
"""How often the pictures are resampled, with replacement, to estimate the spread of their FID."""
WEIGHTS = ((1.0, 0.0), (1.0, 0.5), (1.0, 0.75), (1.0, 1.0), (1.0, 1.25), (0.8, 1.0), (0.9, 1.0), (1.1, 1.0), (0.5, 0.5))
"""Pairs of alpha and beta of Eq. 6."""


def shipped_way() -> Way:
    """Returns the shipped RepControlNet with the shipped identity adapter."""
    return Way(
        branch=read_repcontrolnet(*read_safetensors(BRANCH), name=BRANCH.name),
        adapter=read_identity_adapter(*read_safetensors(IDENTITY_ADAPTER), name=IDENTITY_ADAPTER.name),
    )


def ways_of(makers: Mapping[str, Callable[[], Way]]) -> dict[str, Way]:
    """Returns the ways whose weights exist, and prints the others. Weights that are only compared do not ship."""
    ways = {}
    for name, make in makers.items():
        try:
            ways[name] = make()
        except FileNotFoundError as error:
            print(f"left out: {name}; train it with `dev.py world train {stage_of(Path(error.filename))}`", flush=True)
    return ways


def stage_of(file: Path) -> str:
    """Returns the stage of the recipe that writes a file."""
    return TRIALS_FOLDER if TRIALS_FOLDER in file.parts else file.parent.name


def controlnet_way(folder: Path) -> Way:
    """Returns the ControlNet form, as its training exported it."""
    adapter = read_identity_adapter(*read_safetensors(present(folder / IDENTITY_FILE)), name=IDENTITY_FILE)
    return Way(control_net=comfy.controlnet.load_controlnet(str(folder / CONTROLNET_FILE)), adapter=adapter)


def evaluate_portraits(folder: Path) -> str:
    """Measures Tables 1 and 6: one person, half body."""
    lab, shipped = Laboratory(), shipped_way()
    keys_values = trial_folder(folder, "tokens and the branch's keys and values")
    ways = ways_of({
        SHIPPED: lambda: shipped,
        "FPGA, ControlNet form, 1,200 iterations": lambda: controlnet_way(folder / "controlnet"),
        "FPGA, RepControlNet folded, 1,200 iterations": lambda: read_way(folder / "as_long_as_controlnet"),
        "identity without control (a trial of 500 iterations)": lambda: replace(read_way(keys_values), strength=0.0),
        "RepControlNet, no identity": lambda: Way(branch=shipped.branch),
        "base, text alone": Way,
    })  # fmt: skip
    cases = lab.cases(Shot.HALF, NUM_PORTRAITS)
    pictures = true_pictures(lab, cases)
    pictures |= {name: list(lab.generate(way, cases)) for name, way in ways.items()}
    save_pictures(folder / "tables" / "portraits.jpg", pictures)
    rows = measured(lab, cases, pictures)
    features = {name: lab.reader.read(np.stack([as_bytes(one) for one in row]))[0] for name, row in pictures.items()}
    return markdown(
        rows,
        lambda name: {"FID": fid(features[name], features[PAINTED])},
        references=dict.fromkeys(rows, SHIPPED),
        ceilings=ceilings_of(rows),
    )


def true_pictures(lab: Laboratory, cases: Sequence[Case]) -> dict[str, list[Tensor]]:
    """Returns the reference rows of a table: the true pictures, and these after encoding and decoding."""
    painted = [case.painted() for case in cases]
    return {PAINTED: painted, CEILING: [lab.through_autoencoder(picture) for picture in painted]}


def ceilings_of(rows: Rows, prefix: str = "") -> dict[str, str]:
    """Returns the ceiling of each row whose name begins with the prefix: what the autoencoder lets through."""
    return {name: prefix + CEILING for name in rows if name.startswith(prefix) and name != prefix + PAINTED}


def fid(features: np.ndarray, true: np.ndarray) -> str:
    """Returns the Frechet distance to the true pictures' features, and its spread over resampled pictures."""
    rng = np.random.default_rng(0)
    resampled = [
        frechet_distance(features[rng.integers(0, len(features), len(features))], true) for _ in range(NUM_RESAMPLES)
    ]
    return f"{frechet_distance(features, true):.2f} ± {np.std(resampled, ddof=1):.2f}"


def evaluate_groups(folder: Path) -> str:
    """Measures Table 3: groups of two and three. The two trainings differ only in Clone Face Tuning."""
    lab = Laboratory()
    ways = ways_of({
        "shipped": shipped_way,
        WITH_CLONES: lambda: read_way(folder / "stages"),
        WITHOUT_CLONES: lambda: read_way(folder / "without_clones"),
    })  # fmt: skip
    rows: dict[str, list[Mapping[str, float]]] = {}
    shown: dict[str, list[Tensor]] = {}
    references: dict[str, str] = {}
    for shot in (Shot.DUO, Shot.TRIO):
        cases = lab.cases(shot, NUM_GROUPS)
        people = f"{shot.num_people} people"
        pictures = {f"{people}, {name}": row for name, row in true_pictures(lab, cases).items()}
        for training, way in ways.items():
            for has_masks, masks in ((True, "masks"), (False, "no masks")):
                pictures[f"{people}, {masks}, {training}"] = list(
                    lab.generate(replace(way, has_masks=has_masks), cases)
                )
        for name, row in pictures.items():
            rows[name] = [lab.measure(case, picture) for case, picture in zip(cases, row, strict=True)]
            references[name] = f"{people}, masks, shipped"
            print(markdown({name: rows[name]}).splitlines()[-1], flush=True)
        shown |= pictures
    save_pictures(folder / "tables" / "groups.jpg", shown)
    lines = [
        f"bleed less that of strangers (the true pictures), {num} people, picture by picture, with masks: "
        f"{paired(rows, f'{num} people, masks, shipped', f'{num} people, {PAINTED}', measure='bleed').signed()}"
        for num in (2, 3)
    ]
    tuned, not_tuned = (f"people, masks, {name}" for name in (WITH_CLONES, WITHOUT_CLONES))
    lines += [
        f"{measure} with Clone Face Tuning less without, {num} people, picture by picture, with masks: "
        f"{paired(rows, f'{num} {tuned}', f'{num} {not_tuned}', measure=measure)}"
        for num in (2, 3)
        for measure in ("bleed", FACESIM)
        if {WITH_CLONES, WITHOUT_CLONES} <= ways.keys()
    ]
    ceilings = ceilings_of(rows, "2 people, ") | ceilings_of(rows, "3 people, ")
    table = markdown(rows, references=references, ceilings=ceilings, compared=(FACESIM, "bleed"))
    return "\n\n".join([table, *lines])


def evaluate_conditions(folder: Path) -> str:
    """Measures Multi-Mode Fusion: both drawings and each alone, for the paper's stages and the shipped weights."""
    lab = Laboratory()
    cases = lab.cases(Shot.HALF, NUM_SWEPT)
    pictures = true_pictures(lab, cases)
    ways = ways_of({"the paper's stages": lambda: read_way(folder / "stages"), "shipped": shipped_way})
    for training, way in ways.items():
        for parts in DrawnParts:
            name = f"{training}, {parts.value.replace('_', ' ')}"
            pictures[name] = list(lab.generate(replace(way, parts=parts), cases))
    save_pictures(folder / "tables" / "conditions.jpg", pictures)
    rows = measured(lab, cases, pictures)
    both = f"shipped, {DrawnParts.FACE_AND_BODY.value.replace('_', ' ')}"
    references = dict.fromkeys(rows, both)
    return markdown(rows, references=references, ceilings=ceilings_of(rows), compared=(FACESIM, POSE_ERROR))


def evaluate_weights(folder: Path) -> str:  # noqa: ARG001
    """Measures the effect of alpha and beta (Eq. 6)."""
    lab, shipped = Laboratory(), shipped_way()
    cases = lab.cases(Shot.HALF, NUM_SWEPT)
    pictures = true_pictures(lab, cases)
    for alpha, beta in WEIGHTS:
        pictures[weights_name(alpha, beta)] = list(lab.generate(replace(shipped, alpha=alpha, beta=beta), cases))
    rows = measured(lab, cases, pictures)
    return markdown(rows, references=dict.fromkeys(rows, weights_name(1, 1)), ceilings=ceilings_of(rows))


def weights_name(alpha: float, beta: float) -> str:
    return f"alpha {alpha:g}, beta {beta:g}"


def measured(lab: Laboratory, cases: Sequence[Case], pictures: Mapping[str, Sequence[Tensor]]) -> Rows:
    """Returns all measures of rows of pictures that show the same cases."""
    return {
        name: [lab.measure(case, picture) for case, picture in zip(cases, row, strict=True)]
        for name, row in pictures.items()
    }
