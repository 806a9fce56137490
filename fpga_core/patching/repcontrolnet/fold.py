"""Folds a RepControlNet into the weights of a model (paper section 3.3, Eq. 6) with the host's own weight patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from comfy.model_patcher import ModelPatcher

from ...errors import CheckpointKeyError, PatchConflictError
from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.folding import fit_branch, foldable_parameters
from ..unet import UNET_PREFIX, unet_of

BRANCHES_ATTACHMENT = "fpga_branches"

BranchForm = Literal["folded", "live"]


@dataclass(frozen=True, kw_only=True)
class AppliedBranch:
    """The attachment that records one RepControlNet on a model."""

    name: str
    branch_hash: str
    alpha: float
    beta: float
    form: BranchForm


def applied_branches(model: ModelPatcher) -> tuple[AppliedBranch, ...]:
    """Returns the RepControlNets that `model` carries, in the order of their application."""
    return model.get_attachment(BRANCHES_ATTACHMENT) or ()


def remember_branch(model: ModelPatcher, branch: RepControlNet, *, alpha: float, beta: float, form: BranchForm) -> None:
    """Records on a model that it carries a branch. Raises if the model already carries it.

    Raises:
        PatchConflictError: the same branch was applied before, folded or live.
    """
    branch_hash, earlier = branch.header.branch_hash, applied_branches(model)
    if any(record.branch_hash == branch_hash for record in earlier):
        raise PatchConflictError(
            f"this model already carries the RepControlNet '{branch.name}'; applying it a second time would count its "
            "weights twice. Connect the model from before the first Apply RepControlNet, or use mode 'adapter_only' "
            "here"
        )
    record = AppliedBranch(name=branch.name, branch_hash=branch_hash, alpha=alpha, beta=beta, form=form)
    model.set_attachments(BRANCHES_ATTACHMENT, (*earlier, record))


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
    remember_branch(folded, branch, alpha=alpha, beta=beta, form="folded")
    patches = {UNET_PREFIX + name: ("diff", (weight,)) for name, weight in branch.weights.items()}
    taken = folded.add_patches(patches, strength_patch=beta, strength_model=alpha)
    if refused := patches.keys() - set(taken):
        raise CheckpointKeyError(
            f"the model took no patch for {len(refused)} layers of '{branch.name}', for example {min(refused)}; "
            "another node has probably replaced those layers: apply the RepControlNet directly after the checkpoint "
            "loader"
        )
    return folded
