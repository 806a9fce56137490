"""Trains a RepControlNet, an identity adapter that shares its projections, or both together."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import InvalidInputError
from ...repcontrolnet.branch import INITIAL_RATIO, RepControlNet
from ...repcontrolnet.export import write_repcontrolnet
from ..method.clone_face import RecordedFeature
from ..method.curriculum import Curriculum
from ..method.denoising import DenoisingModel
from ..method.folded_branch import FoldedBranch, TrainedPart
from ..method.identity_network import NEW_IN_IDENTITY, IdentityNetwork, IdentityRecipe, ReadIdentity
from ..method.output_files import REPCONTROLNET_FILE
from .attention import attention_options
from .unet import FrozenUNet


class RepControlNetTraining(DenoisingModel):
    """Trains a branch beside a UNet's frozen layers (Eq. 5), and the identity tokens that its cross attention reads.

    Args:
        unet: the frozen model; nothing else may use it, because the branch is attached to it for good.
        curriculum: the stages of training and their losses.
        branch: what is folded into the base's layers; None: the base alone, for an identity without control.
        identity: the identity part, or None.
        save_dtype: dtype of the tensors in the exported files.
    Raises:
        InvalidInputError: there is nothing to train.
    Source: FPGA sections 3.1 and 3.3.
    """

    new_layers = ("branch.adapter.", *NEW_IN_IDENTITY)

    def __init__(
        self,
        unet: FrozenUNet,
        curriculum: Curriculum,
        branch: FoldedBranch | None,
        *,
        identity: IdentityNetwork | None,
        save_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(unet.base, curriculum, identity, save_dtype=save_dtype)
        self.unet = unet
        self.branch = branch
        if branch is not None:
            branch.attach(unet.network)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise InvalidInputError("there is nothing to train; train a part of the branch, or an identity")

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        curriculum: Curriculum,
        identity: IdentityRecipe | None = None,
        *,
        part: TrainedPart = TrainedPart.ALL,
        ratio: float = INITIAL_RATIO,
        initial: RepControlNet | None = None,
        dtype: torch.dtype = torch.float32,
        save_dtype: torch.dtype = torch.float32,
        is_checkpointed: bool = False,
        seed: int = 0,
    ) -> RepControlNetTraining:
        """Creates what is trained with a ComfyUI model.

        Args:
            model: see `FrozenUNet.of`; it is not changed.
            curriculum: the stages of training and their losses.
            identity: what the identity adapter reads; None if no identity is trained.
            part: the part of the branch that is trained. With `NONE` and no `initial`, there is no branch.
            ratio: factor on the base weights from which a new branch starts.
            initial: a branch to start from instead of a new one.
            dtype, is_checkpointed: as in `FrozenUNet.of`.
            save_dtype: dtype of the tensors in the exported files.
            seed: seed of the initial weights of hint encoder and resampler.
        Raises:
            UnsupportedModeError: the model belongs to another family.
            BaseModelError, CheckpointKeyError, CheckpointShapeError: `initial` does not fit the model.
            InvalidInputError: there is nothing to train, or the ratio is out of range.
        """
        with torch.inference_mode(False), torch.enable_grad():
            unet = FrozenUNet.of(model, dtype=dtype, is_checkpointed=is_checkpointed)
            network = None if identity is None else IdentityNetwork(identity, unet.layers, seed=seed)
            branch = None
            if initial is not None:
                branch = FoldedBranch.resume(unet.network, initial, part=part)
            elif part is not TrainedPart.NONE:
                branch = FoldedBranch.start(unet.network, ratio=ratio, part=part, seed=seed)
            return cls(unet, curriculum, branch, identity=network, save_dtype=save_dtype)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        *,
        text: Tensor,
        hint: Tensor,
        identity: ReadIdentity | None,
        pooled: Tensor | None = None,
        record: RecordedFeature | None = None,
    ) -> Tensor:
        """See `DenoisingModel`."""
        control = None
        if self.branch is not None:
            control = {"input": [self.branch.adapter(hint).to(self.unet.dtype)]}
        options = attention_options(self.unet.layers, identity=identity, record=record)
        return self.unet(x, timesteps, text=text, pooled=pooled, options=options, control=control)

    def repcontrolnet(self, trained_on: str) -> RepControlNet | None:
        """The branch as it is now, as it would be read from its file; None if there is none."""
        if self.branch is None:
            return None
        weights, hint_encoder = (
            {name: tensor.detach().to("cpu", self.save_dtype, copy=True) for name, tensor in tensors.items()}
            for tensors in (self.branch.weights, self.branch.adapter.state_dict())
        )
        conditions = self.curriculum.fusion.conditions
        return RepControlNet.from_weights(
            "repcontrolnet", weights, hint_encoder, conditions=conditions, trained_on=trained_on
        )

    def branch_hash(self) -> str | None:
        """See `DenoisingModel`."""
        branch = self.repcontrolnet("")
        return None if branch is None else branch.header.branch_hash

    def export_control(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes `repcontrolnet.safetensors` if there is a branch."""
        branch = self.repcontrolnet(trained_on)
        if branch is None:
            return []
        write_repcontrolnet(branch, folder / REPCONTROLNET_FILE)
        return [folder / REPCONTROLNET_FILE]
