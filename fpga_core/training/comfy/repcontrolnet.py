"""Training of a RepControlNet, of an identity adapter that shares its projections, or of both together."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import InvalidInputError
from ...identity.adapters import IdentityAdapter
from ...identity.export import write_fpga_adapter
from ...repcontrolnet.branch import INITIAL_RATIO, RepControlNet
from ...repcontrolnet.export import write_repcontrolnet
from ..method.curriculum import Curriculum
from ..method.denoising import DenoisingModel
from ..method.folded_branch import FoldedBranch, TrainedPart
from ..method.identity_network import NEW_IN_IDENTITY, IdentityNetwork, IdentityRecipe
from ..method.output_files import IDENTITY_FILE, REPCONTROLNET_FILE
from .attention import ReadIdentity, RecordedFeature, attention_options
from .unet import FrozenUNet


class RepControlNetTraining(DenoisingModel):
    """Trains a branch beside a UNet's frozen layers (Eq. 5), and the identity tokens that its cross attention reads.

    Args:
        base: the frozen model; nothing else may use it, because the branch is attached to it for good.
        curriculum: the stages of training and their losses.
        branch: what is folded into the base's layers; None: the plain base, for an identity without control.
        identity: the identity part, or None.
        save_dtype: of the tensors in the exported files.
    Raises:
        InvalidInputError: nothing would be trained.
    Source: FPGA sections 3.1 and 3.3.
    """

    new_layers = ("branch.adapter.", *NEW_IN_IDENTITY)

    def __init__(
        self,
        base: FrozenUNet,
        curriculum: Curriculum,
        branch: FoldedBranch | None,
        identity: IdentityNetwork | None,
        save_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(base, curriculum, identity, save_dtype)
        self.branch = branch
        if branch is not None:
            branch.attach(base.unet)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise InvalidInputError("nothing would be trained; train a part of the branch, or an identity")

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        curriculum: Curriculum,
        identity: IdentityRecipe | None = None,
        part: TrainedPart = TrainedPart.ALL,
        ratio: float = INITIAL_RATIO,
        initial: RepControlNet | None = None,
        dtype: torch.dtype = torch.float32,
        save_dtype: torch.dtype = torch.float32,
        is_checkpointed: bool = False,
        seed: int = 0,
    ) -> RepControlNetTraining:
        """What trains beside a ComfyUI model.

        Args:
            model: see `FrozenUNet.of`; it stays as it is.
            curriculum: the stages of training and their losses.
            identity: what the identity adapter reads; None: no identity is trained.
            part: what is trained of the branch. With `NONE` and no `initial` there is no branch.
            ratio: multiple of the base weights that a new branch starts from.
            initial: a branch to start from in the place of a new one.
            dtype, is_checkpointed: as in `FrozenUNet.of`.
            save_dtype: of the tensors in the exported files.
            seed: of the first weights of adapter and resampler.
        Raises:
            UnsupportedModeError: the model is of another family.
            BaseModelError, CheckpointKeyError, CheckpointShapeError: `initial` does not fit the model.
            InvalidInputError: nothing would be trained, or the ratio is out of range.
        """
        with torch.inference_mode(False), torch.enable_grad():
            base = FrozenUNet.of(model, dtype, is_checkpointed)
            network = None if identity is None else IdentityNetwork(identity, base.layers, seed)
            branch = None
            if initial is not None:
                branch = FoldedBranch.resume(base.unet, initial, part)
            elif part is not TrainedPart.NONE:
                branch = FoldedBranch.start(base.unet, ratio, part, seed)
            return cls(base, curriculum, branch, network, save_dtype)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        hint: Tensor,
        identity: ReadIdentity | None,
        record: RecordedFeature | None = None,
    ) -> Tensor:
        """See `DenoisingModel`."""
        control = None
        if self.branch is not None:
            control = {"input": [self.branch.adapter(hint).to(self.base.dtype)]}
        return self.base(x, timesteps, text, attention_options(self.base.layers, identity, record), control)

    def repcontrolnet(self, trained_on: str) -> RepControlNet | None:
        """The branch as it is now, as its file would be read; None where there is none."""
        if self.branch is None:
            return None
        weights, adapter = (
            {name: tensor.detach().to("cpu", self.save_dtype, copy=True) for name, tensor in tensors.items()}
            for tensors in (self.branch.weights, self.branch.adapter.state_dict())
        )
        conditions = self.curriculum.fusion.conditions
        return RepControlNet.from_weights("repcontrolnet", weights, adapter, conditions, trained_on)

    def identity_adapter(self) -> IdentityAdapter | None:
        """The identity as it is now, as the nodes apply it; None where there is none."""
        if self.identity is None:
            return None
        branch = self.repcontrolnet("")
        branch_hash = None if branch is None else branch.header.branch_hash
        return self.identity.as_adapter("identity", self.base.base, self.base.layers, branch_hash, self.save_dtype)

    def export(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes `repcontrolnet.safetensors` and `identity_adapter.safetensors`, each where it is there; see
        `TrainingModel`.
        """
        files, branch, adapter = [], self.repcontrolnet(trained_on), self.identity_adapter()
        if branch is not None:
            files.append(folder / REPCONTROLNET_FILE)
            write_repcontrolnet(branch, files[-1])
        if adapter is not None:
            files.append(folder / IDENTITY_FILE)
            write_fpga_adapter(adapter, files[-1])
        return files
