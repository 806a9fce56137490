"""Training of the ControlNet form: a ControlNet copied from the UNet, with the identity in its cross attention."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.cldm.cldm
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...checkpoints import write_safetensors
from ...identity.export import write_fpga_adapter
from ...patching.cast.controlnet import HandsOnOptions
from ...patching.unet import cross_attention_layers
from ...repcontrolnet.adapter import SD15_WIDTHS
from ..method.curriculum import Curriculum
from ..method.denoising import DenoisingModel
from ..method.folded_branch import untrained_adapter
from ..method.identity_network import NEW_IN_IDENTITY, IdentityNetwork, IdentityRecipe
from ..method.output_files import CONTROLNET_FILE, IDENTITY_FILE
from .attention import ReadIdentity, RecordedFeature, attention_options
from .unet import FrozenUNet, checkpoint_blocks

ZERO_LAYERS = ("zero_convs.", "middle_block_out.")
HINT = "input_hint_block."


class ControlNetTraining(DenoisingModel):
    """Trains a ControlNet whose cross attention reads the text and, through the same projections, an identity.

    Args:
        base: the frozen model.
        curriculum: the stages of training and their losses.
        control_net: all of its parameters are trained, float32.
        identity: the identity part, or None.
        save_dtype: of the tensors in the exported files.
    Source: FPGA section 3.1, the paper's first form.
    """

    new_layers = (*(f"control_net.{part}" for part in (HINT, *ZERO_LAYERS)), *NEW_IN_IDENTITY)

    def __init__(
        self,
        base: FrozenUNet,
        curriculum: Curriculum,
        control_net: nn.Module,
        identity: IdentityNetwork | None,
        save_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(base, curriculum, identity, save_dtype)
        self.control_net = control_net

    @classmethod
    def of(
        cls,
        model: ModelPatcher,
        curriculum: Curriculum,
        identity: IdentityRecipe | None = None,
        dtype: torch.dtype = torch.float32,
        save_dtype: torch.dtype = torch.float32,
        is_checkpointed: bool = False,
        seed: int = 0,
    ) -> ControlNetTraining:
        """A ControlNet that starts as a ComfyUI model's UNet.

        Args:
            model, dtype, is_checkpointed: as in `FrozenUNet.of`; dtype is the frozen UNet's.
            curriculum: the stages of training and their losses.
            identity: what the identity adapter reads; None: no identity is trained.
            save_dtype: of the tensors in the exported files.
            seed: of the first weights of hint encoder and resampler.
        Raises:
            UnsupportedModeError: the model is of another family.
        """
        with torch.inference_mode(False), torch.enable_grad():
            base = FrozenUNet.of(model, dtype, is_checkpointed)
            control_net = initial_controlnet(base, seed)
            if is_checkpointed:
                checkpoint_blocks(control_net)
            layers = cross_attention_layers(control_net)
            network = None if identity is None else IdentityNetwork(identity, layers, seed)
            return cls(base, curriculum, control_net, network, save_dtype)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        hint: Tensor,
        identity: ReadIdentity | None,
        record: RecordedFeature | None = None,
    ) -> Tensor:
        """See `DenoisingModel`; the identity acts in the ControlNet only."""
        options = attention_options(cross_attention_layers(self.control_net), identity, record)
        reading = HandsOnOptions(self.control_net, options)
        times = timesteps.to(x.device).float()
        added = type(self.control_net).forward(reading, x=x, hint=hint, timesteps=times, context=text)
        control = {kind: [part.to(self.base.dtype) for part in parts] for kind, parts in added.items()}
        return self.base(x, timesteps, text, attention_options(self.base.layers), control)

    def export(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes `controlnet.safetensors`, which ComfyUI's own loader reads, and `identity_adapter.safetensors` where
        there is an identity; see `TrainingModel`.
        """
        files = [folder / CONTROLNET_FILE]
        state = {name: tensor.detach().to(self.save_dtype) for name, tensor in self.control_net.state_dict().items()}
        metadata = {"trained_on": trained_on, "conditions": json.dumps(self.curriculum.fusion.conditions)}
        write_safetensors(files[0], state, metadata)
        if self.identity is not None:
            files.append(folder / IDENTITY_FILE)
            layers = cross_attention_layers(self.control_net)
            write_fpga_adapter(
                self.identity.as_adapter("identity", self.base.base, layers, None, self.save_dtype), files[-1]
            )
        return files


def initial_controlnet(base: FrozenUNet, seed: int) -> comfy.cldm.cldm.ControlNet:
    """A ControlNet that starts as a copy of the UNet's encoder and middle, and adds nothing: its outputs are zero.

    Source: ControlNet, section 3.1.
    """
    config = {key: value for key, value in base.config.items() if key not in ("out_channels", "dtype")}
    control_net = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init
    )
    copied = base.unet.state_dict()
    encoder = untrained_adapter((*SD15_WIDTHS[:-1], control_net.model_channels), seed).state_dict()
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
