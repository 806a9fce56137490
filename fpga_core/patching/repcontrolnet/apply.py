"""Applies a RepControlNet: its branch in or beside a model's weights, and its condition image on the prompts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import UnsupportedModeError
from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.folding import check_hint_encoder_fits, foldable_parameters
from ..conditioning import Conditioning, add_control, as_hint, check_text_width, reads_base_weights
from ..schedule import StepRange
from ..unet import cross_attention_layers, unet_of
from .carried import is_in_file
from .fold import READER_WARNING, fold_branch
from .hint import HintControl
from .live import attach_branch


class BranchMode(str, Enum):
    """Where the branch's weights go."""

    AUTO = "auto"
    FOLDED = "folded"
    LIVE = "live"
    ADAPTER_ONLY = "adapter_only"
    """Nowhere, because the model already carries the fold. Only the condition image is added."""


@dataclass(frozen=True, kw_only=True)
class RepControlNetSettings:
    """How a RepControlNet is applied.

    Attributes:
        mode: where the branch's weights go.
        alpha: weight of the base's layers (Eq. 6).
        beta: weight of the branch's layers (Eq. 6).
        strength: scale of the encoded condition image; 0 leaves it out.
        steps: the part of the schedule in which branch and condition image act.
    """

    mode: BranchMode = BranchMode.AUTO
    alpha: float = 1.0
    beta: float = 1.0
    strength: float = 1.0
    steps: StepRange = StepRange()


@dataclass(frozen=True, eq=False)
class AppliedRepControlNet:
    """The result of `apply_repcontrolnet`: the patched clone, both conditionings, and a sentence on what was done."""

    model: ModelPatcher
    positive: Conditioning
    negative: Conditioning
    note: str


def apply_repcontrolnet(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    branch: RepControlNet,
    image: Tensor,
    settings: RepControlNetSettings = RepControlNetSettings(),  # noqa: B008 (frozen)
) -> AppliedRepControlNet:
    """Controls a model with a condition image through a RepControlNet.

    Args:
        model: a UNet model of the branch's architecture.
        positive, negative: receive the encoded condition image.
        branch: as read from its file.
        image: condition images, (num_images, height, width, 3) in [0, 1]; one image serves a whole batch.
        settings: where the branch goes, how strongly, and when.
    Raises:
        UnsupportedModeError, PatchConflictError, CheckpointError: see `apply_branch`.
        InvalidInputError: the condition image is not an RGB picture.
    """
    layers = cross_attention_layers(unet_of(model))
    check_text_width(next(iter(layers.values())).to_k.in_features, positive, negative)
    is_beside_reader = any(reads_base_weights(options) for _, options in (*positive, *negative))
    model, note = apply_branch(model, branch, settings, is_beside_reader=is_beside_reader)
    positive, negative = add_hint(
        positive, negative, branch=branch, image=image, strength=settings.strength, steps=settings.steps
    )
    return AppliedRepControlNet(model, positive, negative, note)


def apply_branch(
    model: ModelPatcher,
    branch: RepControlNet,
    settings: RepControlNetSettings = RepControlNetSettings(),  # noqa: B008 (frozen)
    *,
    is_beside_reader: bool = False,
) -> tuple[ModelPatcher, str]:
    """Puts the branch of a RepControlNet into a model's weights, or beside them.

    Args:
        model: a UNet model of the branch's architecture.
        branch: as read from its file.
        settings: where the branch goes, how strongly, and when.
        is_beside_reader: whether a control beside it copies the model's weights (`reads_base_weights`).
    Returns:
        A patched clone of the model (the model itself if the branch goes nowhere), and a sentence on what was done.
    Raises:
        UnsupportedModeError: see `choose_mode`; or the model is not a UNet.
        PatchConflictError: the model already carries this branch.
        CheckpointError: the branch does not fit the model.
    """
    mode = choose_mode(branch, settings, is_beside_reader=is_beside_reader)
    alpha, beta, steps = settings.alpha, settings.beta, settings.steps
    is_carried = is_in_file(model, branch)
    if settings.mode is BranchMode.AUTO and is_carried:
        mode = BranchMode.ADAPTER_ONLY
    if mode is BranchMode.FOLDED:
        folded = fold_branch(model, branch, alpha=alpha, beta=beta)
        note = f"{branch.name}: folded, W' = {alpha:g} W + {beta:g} W_m"
        return folded, f"{note}\nWarning: {READER_WARNING.format(name=branch.name)}" if is_beside_reader else note
    if mode is BranchMode.LIVE:
        part = f"from {steps.start_percent:g} to {steps.end_percent:g} of the sampling"
        reason = ", because a control-LoRA copies the base's weights" if is_beside_reader else ""
        note = f"{branch.name}: live beside the base{reason}, {alpha:g} W x + {beta:g} W_m x, {part}"
        return attach_branch(model, branch, alpha=alpha, beta=beta, steps=steps), note
    check_hint_encoder_fits(branch, foldable_parameters(unet_of(model)))
    return model, f"{branch.name}: hint encoder only" + (", the model's file carries the fold" if is_carried else "")


def choose_mode(
    branch: RepControlNet, settings: RepControlNetSettings, *, is_beside_reader: bool = False
) -> BranchMode:
    """Returns the mode that `auto` stands for here. Any other mode is checked and returned.

    Raises:
        UnsupportedModeError: the mode cannot express the range of steps, or the file has no branch to fold.
    """
    mode, steps = settings.mode, settings.steps
    if mode is BranchMode.AUTO:
        if branch.is_hint_encoder_only:
            return BranchMode.ADAPTER_ONLY
        return BranchMode.FOLDED if steps.is_whole_run and not is_beside_reader else BranchMode.LIVE
    if mode is BranchMode.FOLDED and not steps.is_whole_run:
        raise UnsupportedModeError(
            f"a folded RepControlNet acts in every step, but start_percent {steps.start_percent:g} and end_percent "
            f"{steps.end_percent:g} ask for only some of them; set them to 0 and 1, or choose mode 'live' or 'auto'"
        )
    if mode is not BranchMode.ADAPTER_ONLY and branch.is_hint_encoder_only:
        raise UnsupportedModeError(
            f"'{branch.name}' holds only the hint encoder of a RepControlNet whose branch was folded into a "
            "checkpoint; choose mode 'adapter_only' and connect that checkpoint"
        )
    return mode


def add_hint(
    positive: Conditioning,
    negative: Conditioning,
    *,
    branch: RepControlNet,
    image: Tensor,
    strength: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> tuple[Conditioning, Conditioning]:
    """Adds a condition image, encoded by a RepControlNet's hint encoder, to both conditionings.

    Args:
        positive, negative: the conditionings; they are not changed.
        branch: a branch whose hint encoder fits the sampled model.
        image: condition images, (num_images, height, width, 3) in [0, 1].
        strength: scale of the encoded image; 0 leaves it out.
        steps: the part of the schedule in which it acts.
    Raises:
        InvalidInputError: the image is not an RGB picture.
    """
    hint = as_hint(image)
    if strength == 0:
        return positive, negative
    control = HintControl.from_branch(branch)
    control.set_cond_hint(hint, strength, (steps.start_percent, steps.end_percent))
    return add_control(positive, negative, control)
