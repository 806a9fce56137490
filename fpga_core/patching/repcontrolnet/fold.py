"""Folds a RepControlNet into the weights of a model (paper section 3.3, Eq. 6) with the host's own weight patches."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, cast

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...errors import CheckpointKeyError
from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.folding import fit_branch, foldable_parameters
from ..conditioning import reads_base_weights
from ..unet import UNET_PREFIX, unet_of
from .carried import FoldPatch, remember_branch

READER_WARNING = (
    "the RepControlNet '{name}' is folded into the model's weights, and a control-LoRA beside it copies these weights "
    "instead of the base's, so both act too strongly; in Apply RepControlNet, set mode to 'live', or to 'auto' and "
    "place the node after the one that applies the control-LoRA"
)

logger = logging.getLogger(__name__)


def fold_branch(model: ModelPatcher, branch: RepControlNet, *, alpha: float = 1.0, beta: float = 1.0) -> ModelPatcher:
    """Returns a clone of `model` whose convolutions and linear layers have weights and biases `alpha W + beta W_m`.

    The patches join the model's list in the order of application: a LoRA applied before the fold is scaled by alpha,
    `alpha (W + L) + beta W_m`; one applied after it is not, `alpha W + beta W_m + L`.

    Raises:
        UnsupportedModeError: the model is not a UNet.
        BaseModelError, CheckpointKeyError, CheckpointShapeError: the branch does not fit this model; nothing is
        patched.
        PatchConflictError: the model already carries this branch.
    Source: FPGA Eq. 6.
    """
    branch = fit_branch(branch, foldable_parameters(unet_of(model)))
    folded = model.clone()
    record = remember_branch(folded, branch, alpha=alpha, beta=beta, form="folded")
    patches = {UNET_PREFIX + name: FoldPatch.of(weight, record) for name, weight in branch.weights.items()}
    taken = folded.add_patches(patches, strength_patch=beta, strength_model=alpha)
    if refused := patches.keys() - set(taken):
        raise CheckpointKeyError(
            f"the model took no patch for {len(refused)} layers of '{branch.name}', for example {min(refused)}; "
            "another node has probably replaced those layers: apply the RepControlNet directly after the checkpoint "
            "loader"
        )
    key = f"fpga_folded_{record.branch_hash}"
    folded.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, partial(warn_of_weight_readers, branch.name))
    return folded


def warn_of_weight_readers(name: str, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """Warns if a ControlNet of a run copies the folded weights. It is an OUTER_SAMPLE wrapper.

    Args:
        name: the name of the folded RepControlNet.
    """
    guider = cast(CFGGuider, executor.class_obj)
    if any(reads_base_weights(entry) for entries in guider.conds.values() for entry in entries):
        logger.warning("%s", READER_WARNING.format(name=name))
    return executor(*args, **kwargs)
