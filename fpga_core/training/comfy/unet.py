"""A ComfyUI model in training: a frozen UNet that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...block_slots import Attention, BlockSlot
from ...errors import UnsupportedModeError
from ...patching.unet import base_of, cross_attention_layers, unet_of
from ..method.denoising import FrozenBase
from ..method.noising import NoiseSchedule, Prediction

SAVED_PREFIX = "model.diffusion_model."
PREDICTIONS: Mapping[ModelType, Prediction] = {
    ModelType.EPS: Prediction.EPS,
    ModelType.V_PREDICTION: Prediction.V,
}
LATENT_CHANNELS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenUNet:
    """A copy of a model's UNet with every patch in its weights, for one training. It is not a module, so that a module
    that holds it does not take its parameters for its own.

    Attributes:
        network: the network, with frozen parameters.
        config: ComfyUI's description of the architecture.
        layers: its cross attentions.
        base: the properties that the objective needs.
    """

    network: UNetModel
    config: dict[str, Any]
    layers: dict[BlockSlot, Attention]
    base: FrozenBase

    @classmethod
    def of(
        cls, model: ModelPatcher, *, dtype: torch.dtype = torch.float32, is_checkpointed: bool = False
    ) -> FrozenUNet:
        """Copies a model's UNet.

        Args:
            model: any checkpoint of the SD1.x/2.x family; it is not changed. Patches of its weights (LoRAs, folds) are
                copied; patches of its calls are not.
            dtype: dtype of the frozen weights and their inputs; trained parameters stay float32.
            is_checkpointed: whether each block is computed again for the gradient instead of keeping its results: a
                third slower, but in much less memory.
        Raises:
            UnsupportedModeError: the model is not a UNet, reads more than latents and text, or predicts neither eps nor
                v.
        """
        _check_supported(model)
        with torch.inference_mode(False):
            config = {**model.model.model_config.unet_config, "dtype": dtype}
            config.pop("device", None)
            unet = UNetModel(**config, device="cpu", operations=comfy.ops.disable_weight_init)
            unet.load_state_dict(_patched_weights(model, dtype))
            unet.requires_grad_(False).eval()
            sigmas = model.get_model_object("model_sampling").sigmas.clone()
        if is_checkpointed:
            checkpoint_blocks(unet)
        base = FrozenBase(
            architecture=base_of(unet),
            latent_channels=config["in_channels"],
            text_dim=config["context_dim"],
            stride=2 ** (len(config["channel_mult"]) - 1),
            schedule=NoiseSchedule.from_sigmas(sigmas, PREDICTIONS[model.model.model_type]),
        )
        return cls(network=unet, config=config, layers=cross_attention_layers(unet), base=base)

    @property
    def dtype(self) -> torch.dtype:
        return self.config["dtype"]

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        *,
        text: Tensor,
        options: dict[str, Any],
        control: dict[str, Any] | None = None,
    ) -> Tensor:
        """Returns the network's prediction.

        Args:
            x: noised latents, (batch, channels, height, width).
            timesteps: (batch,).
            text: (batch, num_tokens, context_dim).
            options: ComfyUI's `transformer_options`, see `attention.attention_options`.
            control: the output of a ControlNet in ComfyUI's form.
        Returns:
            float32, the shape of x.
        """
        self.to(x.device)
        timesteps = timesteps.to(x.device).float()
        output = self.network(
            x.to(self.dtype),
            timesteps,
            context=text.to(self.dtype),
            control=control,
            transformer_options=options,
        )
        return output.float()

    def to(self, device: torch.device) -> None:
        """Moves the network to a device, once."""
        if next(self.network.parameters()).device != device:
            self.network.to(device)


def checkpoint_blocks(network: nn.Module) -> None:
    """Makes a UNet or ControlNet compute each of its blocks again for the gradient."""
    for block in network.modules():
        if isinstance(block, ResBlock | SpatialTransformer):
            block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:  # noqa: ANN401
    # The host writes in the options which block runs: the second run must find what the first one found.
    kept = (dict(part) if isinstance(part, dict) else part for part in inputs)
    return checkpoint(forward, *kept, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportReturnType]


def _check_supported(model: ModelPatcher) -> None:
    unet, kind = unet_of(model), model.model.model_type
    if unet.num_classes is not None or unet.in_channels != LATENT_CHANNELS:
        raise UnsupportedModeError(
            f"training needs a model that reads latents and text only, but {type(model.model).__name__} reads "
            f"{unet.in_channels} channels" + (" and the picture's size" if unet.num_classes is not None else "") + "; "
            "connect a plain SD1.5 checkpoint or a fine-tune of one"
        )
    if kind not in PREDICTIONS:
        raise UnsupportedModeError(
            f"the model predicts {kind.name}, but training needs a model that predicts eps or v; connect an SD1.5 "
            "checkpoint or a fine-tune of one"
        )


def _patched_weights(model: ModelPatcher, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the UNet's weights with every patch in them, on the CPU."""
    comfy.model_management.load_models_gpu([model])
    return {
        name.removeprefix(SAVED_PREFIX): tensor.to("cpu").detach().to(dtype, copy=True)
        for name, tensor in model.state_dict_for_saving().items()
        if name.startswith(SAVED_PREFIX)
    }
