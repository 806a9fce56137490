"""RepControlNet on a ComfyUI model: the branch in the weights or beside them, the Adapter in the conditioning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from comfy.model_patcher import ModelPatcher

from ...errors import UnsupportedModeError
from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.folding import foldable_parameters
from ...repcontrolnet.matching import check_adapter_fits
from ..conditioning import Conditioning, add_control, as_hint
from ..schedule import StepRange
from ..unet import unet_of
from .fold import fold_branch
from .hint import HintControl
from .live import attach_branch


class BranchMode(str, Enum):
    """Where the branch's weights go."""

    AUTO = "auto"
    FOLDED = "folded"
    LIVE = "live"
    ADAPTER_ONLY = "adapter_only"


@dataclass(frozen=True, eq=False)
class AppliedRepControlNet:
    """What `apply_repcontrolnet` gives: the patched clone, the two conditionings, and one sentence that says what was
    done."""

    model: ModelPatcher
    positive: Conditioning
    negative: Conditioning
    note: str


def choose_mode(branch: RepControlNet, mode: BranchMode, steps: StepRange) -> BranchMode:
    """The mode that `auto` stands for here; any other mode is checked and returned.

    Raises:
        UnsupportedModeError: the mode cannot express the range of steps, or the file has no branch to fold.
    """
    if mode is BranchMode.AUTO:
        if not branch.weights:
            return BranchMode.ADAPTER_ONLY
        return BranchMode.FOLDED if steps.is_whole_run else BranchMode.LIVE
    if mode is BranchMode.FOLDED and not steps.is_whole_run:
        raise UnsupportedModeError(
            f"a folded RepControlNet acts in every step, but start_percent {steps.start_percent:g} and end_percent "
            f"{steps.end_percent:g} ask for a part of them; set them to 0 and 1, or choose mode 'live' (or 'auto')"
        )
    if mode is not BranchMode.ADAPTER_ONLY and not branch.weights:
        raise UnsupportedModeError(
            f"'{branch.name}' holds only the adapter of a RepControlNet whose branch was folded into a checkpoint; "
            "choose mode 'adapter_only' and connect that checkpoint"
        )
    return mode


def apply_repcontrolnet(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    branch: RepControlNet,
    image: torch.Tensor,
    mode: BranchMode = BranchMode.AUTO,
    alpha: float = 1.0,
    beta: float = 1.0,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> AppliedRepControlNet:
    """Controls `model` with a condition image through a RepControlNet.

    Args:
        image: condition images, (num_images, height, width, 3) in [0, 1]; one image serves a whole batch.
        alpha: weight of the base layers (Eq. 6).
        beta: weight of the branch's layers (Eq. 6).
        strength: scale of the encoded condition image; 0 leaves the adapter out.
        steps: the part of the schedule in which branch and adapter act.
    Raises:
        UnsupportedModeError, PatchConflictError, CheckpointError: see `choose_mode` and `fold_branch`; nothing is
        patched then.
        InvalidInputError: the condition image is not an RGB picture.
    """
    chosen = choose_mode(branch, mode, steps)
    hint = as_hint(image)
    check_adapter_fits(branch, foldable_parameters(unet_of(model)))
    note = f"{branch.name}: adapter only"
    if chosen is BranchMode.FOLDED:
        model = fold_branch(model, branch, alpha, beta)
        note = f"{branch.name}: folded, W' = {alpha:g} W + {beta:g} W_m"
    elif chosen is BranchMode.LIVE:
        model = attach_branch(model, branch, alpha, beta, steps)
        part = f"from {steps.start_percent:g} to {steps.end_percent:g} of the sampling"
        note = f"{branch.name}: live beside the base, {alpha:g} W x + {beta:g} W_m x, {part}"
    if strength != 0:
        control = HintControl.from_branch(branch)
        control.set_cond_hint(hint, strength, (steps.start_percent, steps.end_percent))
        positive, negative = add_control(positive, negative, control)
    return AppliedRepControlNet(model, positive, negative, note)
