"""A RepControlNet's condition image on ComfyUI, encoded and added after the UNet's first convolution."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from comfy.controlnet import ControlBase, broadcast_image_to
from comfy.model_base import SDXL, BaseModel
from comfy.model_patcher import CoreModelPatcher

from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.hint_encoder import build_hint_encoder
from ...shapes import PIXELS_PER_LATENT
from ..conditioning import check_latent, window_frames


class HintControl(ControlBase):
    """A control that adds one feature map to the first input block, and nothing else.

    It chains with ControlNets and T2I-Adapters in any order, and obeys strength and start/end as they do. The condition
    image is encoded once for each latent size of a sampling run; every step reuses the feature.

    Attributes:
        sub_idxs: the frames of a sliding window, which AnimateDiff-style packs write here; None outside of windows.
    """

    def __init__(self, encoder: CoreModelPatcher) -> None:
        super().__init__()
        self.encoder = encoder
        self.features: dict[torch.Size, torch.Tensor] = {}
        self.dtype = torch.float32
        self.sub_idxs: list[int] | None = None
        self.num_slots, self.num_channels = 1, 4

    @classmethod
    def from_branch(cls, branch: RepControlNet) -> HintControl:
        encoder = build_hint_encoder(branch.hint_encoder, operations=comfy.ops.manual_cast)
        device, offload_device = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
        return cls(CoreModelPatcher(encoder, load_device=device, offload_device=offload_device))

    def pre_run(self, model: BaseModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self.dtype = model.get_dtype_inference()
        self.num_channels = model.latent_format.latent_channels
        # As many as a T2I-Adapter of the base has: SDXL's has one more than there are input blocks.
        self.num_slots = len(model.diffusion_model.input_blocks) + isinstance(model, SDXL)

    def get_control(
        self,
        x_noisy: torch.Tensor,
        t: torch.Tensor,
        cond: dict[str, Any],
        batched_number: int,
        transformer_options: dict[str, Any],
    ) -> dict[str, list[torch.Tensor | None]] | None:
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        first, last = self.timestep_range or (float("inf"), 0.0)
        if not last <= t[0] <= first:
            return previous
        check_latent(x_noisy, self.num_channels)
        feature = self.feature_for(x_noisy)
        frames = window_frames(self.sub_idxs, transformer_options, len(feature))
        feature = broadcast_image_to(feature if frames is None else feature[frames], x_noisy.shape[0], batched_number)
        # The host takes "input" features from the end of the list, one for each input block, but merges the lists of
        # chained controls by index from the start: lists of different length would shift each other. Strength is
        # applied in place, hence the clone.
        control = {"input": [None] * (self.num_slots - 1) + [feature.clone()], "middle": [], "output": []}
        return self.control_merge(control, previous, x_noisy.dtype)

    def feature_for(self, x_noisy: torch.Tensor) -> torch.Tensor:
        """Returns the encoded condition image at the latent's size, (num_images, channels, height, width)."""
        size = x_noisy.shape[-2:]
        if size not in self.features:
            width_px, height_px = size[1] * PIXELS_PER_LATENT, size[0] * PIXELS_PER_LATENT
            image = comfy.utils.common_upscale(self.cond_hint_original, width_px, height_px, "bilinear", "center")
            self.features[size] = self.encoder.model(image.to(x_noisy.device, self.dtype))
        return self.features[size]

    def cleanup(self) -> None:
        super().cleanup()
        self.features, self.sub_idxs = {}, None

    def copy(self) -> HintControl:
        copied = HintControl(self.encoder)
        self.copy_to(copied)
        return copied

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> HintControl:
        encoder = CoreModelPatcher(
            copy.deepcopy(self.encoder.model), load_device=load_device, offload_device=self.encoder.offload_device
        )
        cloned = HintControl(encoder)
        self.copy_to(cloned)
        if autoregister:
            self.multigpu_clones[load_device] = cloned
        return cloned

    def get_models(self) -> list[CoreModelPatcher]:
        return [*super().get_models(), self.encoder]
