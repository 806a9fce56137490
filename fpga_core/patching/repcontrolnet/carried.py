"""Which RepControlNets a model carries: applied in the graph, or folded into the file that it was loaded from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from comfy.model_patcher import ModelPatcher

from ...checkpoints import is_safetensors, read_safetensors_header
from ...errors import CheckpointReadError, PatchConflictError
from ...repcontrolnet.branch import RepControlNet
from ..unet import UNET_PREFIX

BRANCHES_ATTACHMENT = "fpga_branches"

BRANCHES_ENTRY = "fpga.branches"
"""The entry of a saved model's header (docs/formats.md)."""

BranchForm = Literal["folded", "live", "unknown"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AppliedBranch:
    """One RepControlNet on a model.

    Attributes:
        name: its name in messages.
        branch_hash: its hash.
        alpha, beta: the weights of Eq. 6; None if the model was merged since, so that they are unknown.
        form: how the model carries it.
    """

    name: str
    branch_hash: str
    alpha: float | None
    beta: float | None
    form: BranchForm


class FoldPatch(tuple[str, tuple[Any, ...]]):
    """A weight patch of the host that belongs to a fold, which can be told from others after a merge."""

    record: AppliedBranch

    @classmethod
    def of(cls, weight: Any, record: AppliedBranch) -> FoldPatch:  # noqa: ANN401 - a tensor
        """Returns the patch that adds a weight of the branch."""
        patch = cls(("diff", (weight,)))
        patch.record = record
        return patch


def applied_branches(model: ModelPatcher) -> tuple[AppliedBranch, ...]:
    """Returns the RepControlNets that nodes applied to a model, in the order of their application."""
    return model.get_attachment(BRANCHES_ATTACHMENT) or ()


def carried_branches(model: ModelPatcher) -> tuple[AppliedBranch, ...]:
    """Returns the RepControlNets that a model carries, wherever they come from.

    These are those in the header of its file, those that nodes applied, and those of models that were merged into it.
    After a merge, how strongly it carries any of them is unknown.
    """
    records = (*_saved_branches(model), *applied_branches(model))
    merged = [patch for patch in _patches(model) if isinstance(patch, list)]
    if not merged:
        return records
    of_others = [record for patch in merged for record in _folds_in(patch)]
    unknown = [replace(record, form="unknown", alpha=None, beta=None) for record in (*records, *of_others)]
    return tuple({record.branch_hash: record for record in unknown}.values())


def remember_branch(
    model: ModelPatcher, branch: RepControlNet, *, alpha: float, beta: float, form: BranchForm
) -> AppliedBranch:
    """Records on a model that it carries a branch. Raises if the model already carries it.

    Raises:
        PatchConflictError: the same branch was applied before, folded or live, or is in the model's file.
    """
    branch_hash = branch.header.branch_hash
    earlier = next((record for record in carried_branches(model) if record.branch_hash == branch_hash), None)
    if earlier is not None and earlier.form == "unknown":
        logger.warning(
            "this model was merged from one that carries the RepControlNet '%s', so how strongly it still does is "
            "unknown; applying it adds to that. Apply it after merging the plain models instead",
            branch.name,
        )
    elif earlier is not None:
        raise PatchConflictError(
            f"this model already carries the RepControlNet '{branch.name}'; applying it a second time would count its "
            "weights twice. Connect the model from before the first Apply RepControlNet, or use mode 'adapter_only' "
            "here"
        )
    record = AppliedBranch(name=branch.name, branch_hash=branch_hash, alpha=alpha, beta=beta, form=form)
    model.set_attachments(BRANCHES_ATTACHMENT, (*applied_branches(model), record))
    return record


def is_in_file(model: ModelPatcher, branch: RepControlNet) -> bool:
    """Returns whether a branch is folded into the file of a model, and nothing has been merged since."""
    folded = {record.branch_hash for record in carried_branches(model) if record.form == "folded"}
    in_file = {record.branch_hash for record in _saved_branches(model)}
    return branch.header.branch_hash in folded & in_file


def branches_entry(records: Sequence[AppliedBranch]) -> dict[str, str]:
    """Returns the entry of a file's header that names the RepControlNets in its weights."""
    return {BRANCHES_ENTRY: json.dumps([asdict(record) for record in records])}


def _saved_branches(model: ModelPatcher) -> tuple[AppliedBranch, ...]:
    """Reads the header of the file that the host's loaders note on a model; nothing if they note none."""
    _, arguments, *_ = getattr(model, "cached_patcher_init", None) or (None, ())
    path = arguments[0] if arguments else None
    if not isinstance(path, str):
        return ()
    try:
        header = read_safetensors_header(path) if is_safetensors(path) else {}
        return tuple(AppliedBranch(**entry) for entry in json.loads(header.get(BRANCHES_ENTRY, "[]")))
    except (CheckpointReadError, OSError, ValueError, TypeError):  # moved since, or written by another program
        return ()


def _patches(model: ModelPatcher) -> Iterator[object]:
    """Yields the weight patches of a model's UNet; a list is a whole other weight, as merges add it."""
    for key, entries in model.patches.items():
        if key.startswith(UNET_PREFIX):
            yield from (entry[1] for entry in entries)


def _folds_in(patch: object) -> Iterator[AppliedBranch]:
    """Yields the folds in a patch; that of a merge is a list of a weight and of the patches on it."""
    if isinstance(patch, FoldPatch):
        yield patch.record
    elif isinstance(patch, list):
        for entry in cast("list[Any]", patch)[1:]:
            yield from _folds_in(entry[1])
