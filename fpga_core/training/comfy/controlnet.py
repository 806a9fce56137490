"""Training of the ControlNet form: a copy of the UNet's encoder, with the identity in its cross attention."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.cldm.cldm
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...checkpoints import write_safetensors
from ...patching.cast.control_model import forward_with_options
from ...patching.unet import cross_attention_layers
from ...repcontrolnet.hint_encoder import SD15_WIDTHS
from ..method.clone_face import RecordedFeature
from ..method.curriculum import Curriculum
from ..method.denoising import DenoisingModel
from ..method.folded_branch import untrained_hint_encoder
from ..method.identity_network import NEW_IN_IDENTITY, IdentityNetwork, IdentityRecipe, ReadIdentity
from ..method.output_files import CONTROLNET_FILE
from .attention import attention_options
from .unet import FrozenUNet, checkpoint_blocks

ZERO_LAYERS = ("zero_convs.", "middle_block_out.")
HINT = "input_hint_block."


class ControlNetTraining(DenoisingModel):
    """Trains a ControlNet whose cross attention reads the text and, through the same projections, an identity.

    Args:
        unet: the frozen model.
        curriculum: the stages of training and their losses.
        control_net: all of its float32 parameters are trained.
        identity: the identity part, or None.
        save_dtype: dtype of the tensors in the exported files.
    Source: FPGA section 3.1, the paper's first form.
    """

    new_layers = (*(f"control_net.{part}" for part in (HINT, *ZERO_LAYERS)), *NEW_IN_IDENTITY)

    def __init__(
        self,
        unet: FrozenUNet,
        curriculum: Curriculum,
        control_net: nn.Module,
        *,
        identity: IdentityNetwork | None,
        save_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(unet.base, curriculum, identity, save_dtype=save_dtype)
        self.unet = unet
        self.control_net = control_net

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        curriculum: Curriculum,
        identity: IdentityRecipe | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        save_dtype: torch.dtype = torch.float32,
        is_checkpointed: bool = False,
        seed: int = 0,
    ) -> ControlNetTraining:
        """Creates a ControlNet that starts as a copy of a ComfyUI model's UNet.

        Args:
            model, dtype, is_checkpointed: as in `FrozenUNet.of`; dtype is the frozen UNet's.
            curriculum: the stages of training and their losses.
            identity: what the identity adapter reads; None if no identity is trained.
            save_dtype: dtype of the tensors in the exported files.
            seed: seed of the initial weights of hint encoder and resampler.
        Raises:
            UnsupportedModeError: the model belongs to another family.
        """
        with torch.inference_mode(False), torch.enable_grad():
            unet = FrozenUNet.of(model, dtype=dtype, is_checkpointed=is_checkpointed)
            control_net = initial_controlnet(unet, seed)
            if is_checkpointed:
                checkpoint_blocks(control_net)
            layers = cross_attention_layers(control_net)
            network = None if identity is None else IdentityNetwork(identity, layers, seed=seed)
            return cls(unet, curriculum, control_net, identity=network, save_dtype=save_dtype)

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
        """See `DenoisingModel`. The identity acts only in the ControlNet."""
        options = attention_options(cross_attention_layers(self.control_net), identity=identity, record=record)
        times = timesteps.to(x.device).float()
        y = self.unet.vector(pooled, x)
        added = forward_with_options(self.control_net, options, x=x, hint=hint, timesteps=times, context=text, y=y)
        control = {kind: [part.to(self.unet.dtype) for part in parts] for kind, parts in added.items()}
        options = attention_options(self.unet.layers)
        return self.unet(x, timesteps, text=text, pooled=pooled, options=options, control=control)

    def export_control(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes `controlnet.safetensors`, which ComfyUI's own loader reads."""
        state = {name: tensor.detach().to(self.save_dtype) for name, tensor in self.control_net.state_dict().items()}
        metadata = {"trained_on": trained_on, "conditions": json.dumps(self.curriculum.fusion.conditions)}
        write_safetensors(folder / CONTROLNET_FILE, state, metadata)
        return [folder / CONTROLNET_FILE]


def initial_controlnet(unet: FrozenUNet, seed: int) -> comfy.cldm.cldm.ControlNet:
    """Returns a copy of the UNet's encoder and middle as a ControlNet whose outputs are zero, so that it adds nothing.

    Source: ControlNet, section 3.1.
    """
    config = {key: value for key, value in unet.config.items() if key not in ("out_channels", "dtype")}
    control_net = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init
    )
    copied = unet.network.state_dict()
    encoder = untrained_hint_encoder((*SD15_WIDTHS[:-1], control_net.model_channels), seed).state_dict()
    state = {}
    for name, parameter in control_net.state_dict().items():
        if name.startswith(ZERO_LAYERS):
            state[name] = torch.zeros_like(parameter)
        elif name.startswith(HINT):
            state[name] = encoder[name.removeprefix(HINT)]
        else:
            state[name] = copied[name].float()
    control_net.load_state_dict(state)
    return control_net.requires_grad_(True)
