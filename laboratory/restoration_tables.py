"""`dev.py world evaluate choice | restoration | full-body`: DIIR on held-out full-body pictures (Tables 2, 4, Fig. 8).

`choice` compares settings on one half of the cases, by the rule in docs/results.md, and `restoration` confirms the
defaults on the other half. In both, the autoencoder alone breaks the faces. In `full-body`, the pictures are generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..fpga_core.evaluation.table import FACESIM, Rows, markdown
from ..fpga_core.restoration.fusion import StyleSource
from ..fpga_core.restoration.settings import InversionSettings, InvertWith, Preset
from .generation_lab import CEILING, PAINTED, controlnet_way, true_pictures, ways_of
from .laboratory import Way, enlarge, save_pictures
from .restoration_lab import (
    BORDER,
    Broken,
    Plan,
    RestorationLab,
    Restored,
    by_detector,
    face_of,
    general_prompt,
    prompt_of_crop,
)
from .scenes import Shot
from .tables import POSE_ERROR, choosing, confirming, is_chosen

NUM_CHOOSING, NUM_CONFIRMING, NUM_FULL_BODY = 48, 200, 48
TRUE, BROKEN, CROP_CEILING = "true picture", "broken", "true picture through the autoencoder"
DEFAULTS, FRESH, INPAINTING, PAPER = "DIIR, defaults", "fresh noise", "inpainting, denoise", "as in the paper"
USERS = "DIIR, the user's settings"
DENOISES = (0.6, 0.75, 0.9, 1.0)
KEPT = (POSE_ERROR, BORDER)
"""Errors that must not rise when a setting is replaced."""

Change = Callable[[Plan], Plan]
Measured = dict[str, list[Mapping[str, float]]]


def set_to(**options) -> Change:  # noqa: ANN003
    return lambda plan: replace(plan, settings=replace(plan.settings, **options))


def crop_set_to(**options) -> Change:  # noqa: ANN003
    return lambda plan: set_to(crop=replace(plan.settings.crop, **options))(plan)


def fusion_set_to(**options) -> Change:  # noqa: ANN003
    return lambda plan: set_to(fusion=replace(plan.settings.fusion, **options))(plan)


def inversion_set_to(**options) -> Change:  # noqa: ANN003
    return lambda plan: set_to(inversion=replace(plan.settings.inversion, **options))(plan)


CANDIDATES: Mapping[str, Mapping[str, Change]] = {
    "invert_with": {choice.value: inversion_set_to(invert_with=choice) for choice in InvertWith},
    "style_source": {choice.value: fusion_set_to(style_source=choice) for choice in StyleSource},
    "margin": {"0.38": crop_set_to(margin=0.38), "0.5": crop_set_to(margin=0.5)},
    "end_percent": {"0.6": fusion_set_to(end_percent=0.6), "1": fusion_set_to(end_percent=1.0)},
    "identity_strength": {"1": set_to(identity_strength=1.0), "1.2": set_to(identity_strength=1.2)},
    "identity_region": {
        "the pasted mask": crop_set_to(identity_region=0.0),
        "1.35": crop_set_to(identity_region=1.35),
        "1.45": crop_set_to(identity_region=1.45),
    },
    "attention_strength": {"0, latents alone": fusion_set_to(attention_strength=0.0)},
    "mask_grow": {"0.04": crop_set_to(mask_grow=0.04), "0.12": crop_set_to(mask_grow=0.12)},
    "match_colors": {"on": set_to(are_colors_matched=True)},
    "prompt": {
        "a close-up": lambda plan: replace(plan, prompt=prompt_of_crop),
        "close-up of a person": lambda plan: replace(plan, prompt=general_prompt),
    },
}
"""Settings that compete for the defaults. Values that change nothing are left out."""

COMPARISONS: Mapping[str, Change] = {
    PAPER: set_to(preset=Preset.AS_IN_THE_PAPER),
    "no fusion": fusion_set_to(attention_strength=0.0, latent_strength=0.0),
    "no landmarks": lambda plan: replace(plan, has_control=False),
    "1 repetition": inversion_set_to(repetitions=1),
    "30 steps": set_to(steps=30),
    "guidance 5": set_to(cfg=5.0),
}
"""Rows beside the candidates."""


def users(plan: Plan) -> Plan:
    """Returns the plan of a user, who knows no truth: default steps and guidance, and faces from the detector."""
    return replace(
        plan, settings=replace(plan.settings, steps=30, cfg=5.0, inversion=InversionSettings()), find=by_detector
    )


class RestorationTable:
    """Rows of restored faces, all of the same pictures."""

    def __init__(self, lab: RestorationLab, pictures: Sequence[Broken]) -> None:
        self.lab, self.pictures = lab, pictures
        self.rows: Measured = {}
        self.shown: dict[str, list[Tensor]] = {}
        self.add(TRUE, lambda pictures: [unchanged(one, one.true) for one in pictures])
        self.add(CROP_CEILING, partial(lab.paste_truth, plan=Plan()))
        self.add(BROKEN, lambda pictures: [unchanged(one, one.picture) for one in pictures])

    def add(self, name: str, way: Callable[[Sequence[Broken]], Sequence[Restored]]) -> None:
        restored = way(self.pictures)
        pairs = list(zip(self.pictures, restored, strict=True))
        self.rows[name] = [self.lab.measure_restored(one, after) for one, after in pairs]
        self.shown[name] = [face_of(one, after.image) for one, after in pairs[:8]]
        print(markdown({name: self.rows[name]}).splitlines()[-1], flush=True)

    def add_plan(self, name: str, plan: Plan) -> None:
        self.add(name, partial(self.lab.restore, plan=plan))

    def text(self, reference: str) -> str:
        same = dict.fromkeys(self.rows, reference)
        ceilings = {name: CROP_CEILING for name in self.rows if name != TRUE}
        return markdown(self.rows, references=same, ceilings=ceilings, compared=(FACESIM, *KEPT))


def unchanged(one: Broken, picture: Tensor) -> Restored:
    """Returns a picture in which nothing was pasted. The background of the true picture is not compared."""
    is_all = torch.full(picture.shape[1:3], float(picture is not one.picture))
    return Restored(picture, is_all)


def evaluate_choice(folder: Path) -> str:
    """Compares settings of Restore Faces on the choosing half of the cases."""
    lab, plan = RestorationLab(), Plan()
    cases = choosing(lab.lab.cases(Shot.FULL, 2 * NUM_CHOOSING))
    table = RestorationTable(lab, [lab.broken(case) for case in cases])
    table.add_plan(DEFAULTS, plan)
    changes = {
        setting: {f"{setting} {value}": change for value, change in values.items() if change(plan) != plan}
        for setting, values in CANDIDATES.items()
    }
    for name, change in {**{k: v for values in changes.values() for k, v in values.items()}, **COMPARISONS}.items():
        table.add_plan(name, change(plan))
    table.add(FRESH, partial(lab.restore_from_noise, plan=plan))
    for denoise in DENOISES:
        table.add(f"{INPAINTING} {denoise:g}", partial(lab.inpaint, plan=plan, denoise=denoise))
    best = [name for values in changes.values() if (name := best_of(table.rows, values)) is not None]
    lines = [f"clearly better than the defaults, by the rule: {', '.join(best) or 'nothing'}"]
    if len(best) > 1:
        together = plan
        for values in changes.values():
            for name in set(best) & values.keys():
                together = values[name](together)
        table.add_plan("all of these together", together)
    inpaintings = {name: table.rows[name] for name in table.rows if name.startswith(INPAINTING)}
    lines.append(f"best inpainting: {max(inpaintings, key=lambda name: mean_of(inpaintings, name))}")
    save_pictures(folder / "tables" / "choice.jpg", table.shown)
    return "\n\n".join([table.text(DEFAULTS), *lines])


def mean_of(rows: Rows, name: str) -> float:
    return sum(row[FACESIM] for row in rows[name]) / len(rows[name])


def best_of(rows: Rows, values: Mapping[str, Change]) -> str | None:
    """Returns the row of a setting that replaces the default, by the rule; None if the default stays."""
    chosen = [name for name in values if is_chosen(rows, name, DEFAULTS, kept=KEPT)]
    return max(chosen, key=lambda name: mean_of(rows, name), default=None)


CHOSEN_DENOISE = 1.0
"""Of the inpainting rows of `choice`, the one with the highest FaceSim."""


def evaluate_restoration(folder: Path) -> str:
    """Confirms the defaults on the other half of the cases, beside fresh noise, inpainting and the paper's form."""
    lab, plan = RestorationLab(), Plan()
    cases = confirming(lab.lab.cases(Shot.FULL, 2 * NUM_CONFIRMING))
    table = RestorationTable(lab, [lab.broken(case) for case in cases])
    table.add_plan(DEFAULTS, plan)
    table.add_plan(USERS, users(plan))
    table.add_plan(PAPER, COMPARISONS[PAPER](plan))
    table.add(FRESH, partial(lab.restore_from_noise, plan=plan))
    table.add(f"{INPAINTING} {CHOSEN_DENOISE:g}", partial(lab.inpaint, plan=plan, denoise=CHOSEN_DENOISE))
    table.add_plan("no fusion", COMPARISONS["no fusion"](plan))
    save_pictures(folder / "tables" / "restoration.jpg", table.shown)
    return table.text(DEFAULTS)


def evaluate_full_body(folder: Path) -> str:
    """Measures Table 2: full-body pictures by several generators, without and with DIIR.

    DIIR restores the face that the control's landmarks describe. Without a control it restores the largest face found.
    """
    lab = RestorationLab()
    cases = lab.lab.cases(Shot.FULL, NUM_FULL_BODY)
    ways = ways_of(
        {
            "FPGA, ControlNet form, 1,200 iterations": lambda: controlnet_way(folder / "controlnet"),
            "FPGA, RepControlNet folded": lambda: Way(branch=lab.branch, adapter=lab.adapter),
            "RepControlNet, no identity": lambda: Way(branch=lab.branch),
            "base, text alone": Way,
        }
    )
    shown = {name: [enlarge(picture) for picture in row] for name, row in true_pictures(lab.lab, cases).items()}
    true = [lab.broken(case) for case in cases]
    shown[CROP_CEILING] = [one.image for one in lab.paste_truth(true, Plan())]
    references: dict[str, str] = {}
    for name, way in ways.items():
        shown[name] = [enlarge(picture) for picture in lab.lab.generate(way, cases)]
        shown[name + DIIR] = restore_generated(lab, true, shown[name], knows_places=is_controlled(way))
        references[name + DIIR] = name
    rows = {
        name: [lab.lab.measure(case, picture) for case, picture in zip(cases, pictures, strict=True)]
        for name, pictures in shown.items()
    }
    save_pictures(folder / "tables" / "full-body.jpg", shown)
    ceilings = {name: CROP_CEILING if name.endswith(DIIR) else CEILING for name in rows if name != PAINTED}
    return markdown(rows, references=references, ceilings=ceilings)


DIIR = " + DIIR"


def is_controlled(way: Way) -> bool:
    return way.branch is not None or way.control_net is not None


def restore_generated(
    lab: RestorationLab, true: Sequence[Broken], pictures: Sequence[Tensor], *, knows_places: bool
) -> list[Tensor]:
    """Restores one face of each generated picture: where landmarks asked for it, or else the largest one found."""
    restored = list(pictures)
    chosen: list[tuple[int, Broken]] = []
    for number, (one, picture) in enumerate(zip(true, pictures, strict=True)):
        found = lab.lab.find_faces(picture).faces
        face = one.face if knows_places else max(found, key=lambda face: face.box.area, default=None)
        if face is not None:
            chosen.append((number, replace(one, picture=picture, face=face)))
    after = lab.restore([one for _, one in chosen], Plan())
    for (number, _), one in zip(chosen, after, strict=True):
        restored[number] = one.image
    return restored
