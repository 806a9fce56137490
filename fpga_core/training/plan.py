"""The plan of a training: what is trained, and how, as a node or a command line decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from ..checkpoints import hash_state_dict
from ..identity.adapters import IdentityAdapter
from ..identity.resampler import PROJECTION_DIM
from ..repcontrolnet.branch import RepControlNet
from .engine.settings import TrainingSettings
from .method.curriculum import Curriculum


class Task(str, Enum):
    """What is trained."""

    REPCONTROLNET = "repcontrolnet"
    """Copies of all of a UNet's layers and the hint encoder, to be folded in."""

    IDENTITY = "identity"
    """Identity tokens, and copies of the projections that read them."""

    CONTROLNET = "controlnet"
    """A ControlNet with the identity in its cross attention."""


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """How the encoded set is kept.

    Attributes:
        memory_mib: memory of each process for samples that are kept as they are stored.
        text_dtype: dtype of the stored text; float16 takes half the space.
    """

    memory_mib: int = 1024
    text_dtype: torch.dtype = torch.float32


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is trained, and how.

    Attributes:
        task: what is trained.
        settings: settings of the engine.
        curriculum: the stages of training and their losses.
        encodings: how the encoded set is kept.
        has_identity: whether identity tokens are trained too; an identity training always trains them.
        identity_dim: width of the layer between a face's embedding and its tokens; a small model needs a small width.
        is_checkpointed: whether each block is computed again for the gradient, which needs much less memory.
        save_dtype: dtype of the exported tensors.
    """

    task: Task
    settings: TrainingSettings
    curriculum: Curriculum = field(default_factory=Curriculum)
    encodings: EncodingSettings = field(default_factory=EncodingSettings)
    has_identity: bool = False
    identity_dim: int = PROJECTION_DIM
    is_checkpointed: bool = False
    save_dtype: torch.dtype = torch.float32

    @property
    def trains_identity(self) -> bool:
        return self.has_identity or self.task is Task.IDENTITY

    def decisive(
        self, base_hash: str, *, branch: RepControlNet | None, adapter: IdentityAdapter | None
    ) -> Mapping[str, Any]:
        """Returns what the loss curve depends on besides the engine's settings. A training resumes only with the same.

        Args:
            base_hash: hash of the frozen model's weights.
            branch: the branch to start from; None starts a new one.
            adapter: the identity adapter to start from; None starts a new one.
        """
        fusion, clone_face = self.curriculum.fusion, self.curriculum.clone_face
        # Named only if they are set, so that states from before these settings go on.
        weights = {"face weight": self.curriculum.face_weight, "min-SNR gamma": self.curriculum.min_snr_gamma}
        named: dict[str, Any] = {name: weight for name, weight in weights.items() if weight}
        if adapter is not None:
            named["identity adapter"] = hash_state_dict(adapter.resampler.state_dict())[:16]
        return {
            "task": self.task.value,
            "identity": self.trains_identity,
            "identity width": self.identity_dim,
            "landmarks iterations": fusion.num_landmarks,
            "skeleton iterations": fusion.num_skeleton,
            "clone_every": fusion.clone_every,
            "single_share": fusion.single_share,
            "clone weight": clone_face.weight,
            "text dropped": self.curriculum.drops.text,
            "identity dropped": self.curriculum.drops.identity,
            "branch": "new" if branch is None else branch.header.branch_hash[:16],
            "base model": base_hash[:16],
            **named,
        }
