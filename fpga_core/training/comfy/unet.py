"""A ComfyUI model in training: a frozen UNet that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, Timestep, UNetModel
from comfy.model_base import SDXL, ModelType
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...block_slots import Attention, BlockSlot
from ...errors import UnsupportedModeError
from ...patching.unet import base_of, cross_attention_layers, unet_of
from ...shapes import PIXELS_PER_LATENT
from ..method.denoising import FrozenBase
from ..method.noising import NoiseSchedule, Prediction

SAVED_PREFIX = "model.diffusion_model."
PREDICTIONS: Mapping[ModelType, Prediction] = {
    ModelType.EPS: Prediction.EPS,
    ModelType.V_PREDICTION: Prediction.V,
}
LATENT_CHANNELS = 4
SIZES_DIM = 6 * 256
"""Width of the picture's size, crop and wanted size in the vector that SDXL reads; the rest is pooled text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenUNet:
    """A copy of a model's UNet with every patch in its weights, for one training. It is not a module, so that a module
    that holds it does not take its parameters for its own.

    Attributes:
        network: the network, with frozen parameters.
        config: ComfyUI's description of the architecture.
        layers: its cross attentions.
        base: the properties that the objective needs.
        encode_vector: ComfyUI's own encoding of pooled text and the picture's size, which SDXL reads; else None.
    """

    network: UNetModel
    config: dict[str, Any]
    layers: dict[BlockSlot, Attention]
    base: FrozenBase
    encode_vector: Callable[..., Tensor] | None = None

    @classmethod
    def of(
        cls, model: ModelPatcher, *, dtype: torch.dtype = torch.float32, is_checkpointed: bool = False
    ) -> FrozenUNet:
        """Copies a model's UNet.

        Args:
            model: any checkpoint of the SD1.x/2.x family or of SDXL; it is not changed. Patches of its weights (LoRAs,
                folds) are copied; patches of its calls are not.
            dtype: dtype of the frozen weights and their inputs; trained parameters stay float32.
            is_checkpointed: whether each block is computed again for the gradient instead of keeping its results: a
                third slower, but in much less memory.
        Raises:
            UnsupportedModeError: the model is not a UNet, reads more than latents and text (and, as SDXL, the picture's
                size), or predicts neither eps nor v.
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
            pooled_dim=(config["adm_in_channels"] - SIZES_DIM) if unet.num_classes is not None else 0,
            schedule=NoiseSchedule.from_sigmas(sigmas, PREDICTIONS[model.model.model_type]),
        )
        encode_vector = None
        if unet.num_classes is not None:  # bound to what it needs alone, so that the model can leave the memory
            encode_vector = partial(SDXL.encode_adm, SimpleNamespace(embedder=Timestep(256), noise_augmentor=None))
        layers = cross_attention_layers(unet)
        return cls(network=unet, config=config, layers=layers, base=base, encode_vector=encode_vector)

    @property
    def dtype(self) -> torch.dtype:
        return self.config["dtype"]

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        *,
        text: Tensor,
        pooled: Tensor | None = None,
        options: dict[str, Any],
        control: dict[str, Any] | None = None,
    ) -> Tensor:
        """Returns the network's prediction.

        Args:
            x: noised latents, (batch, channels, height, width).
            timesteps: (batch,).
            text: (batch, num_tokens, context_dim).
            pooled: (batch, pooled_dim), if the model reads it.
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
            y=self.vector(pooled, x),
            control=control,
            transformer_options=options,
        )
        return output.float()

    def vector(self, pooled: Tensor | None, x: Tensor) -> Tensor | None:
        """Returns what SDXL reads beside the text, in x's size, as sampling does; None for other models."""
        if self.encode_vector is None:
            return None
        height, width = (side * PIXELS_PER_LATENT for side in x.shape[-2:])
        return self.encode_vector(pooled_output=pooled, width=width, height=height).to(x.device, self.dtype)

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
    is_known = unet.num_classes is None or type(model.model) is SDXL
    if not is_known or unet.in_channels != LATENT_CHANNELS:
        raise UnsupportedModeError(
            "connect a plain SD1.5 or SDXL checkpoint, or a fine-tune of one: training does not know what "
            f"{type(model.model).__name__} reads ({unet.in_channels} channels)"
        )
    if kind not in PREDICTIONS:
        raise UnsupportedModeError(
            f"the model predicts {kind.name}, but training needs a model that predicts eps or v; connect an SD1.5 "
            "or SDXL checkpoint, or a fine-tune of one"
        )


def _patched_weights(model: ModelPatcher, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the UNet's weights with every patch in them, on the CPU."""
    comfy.model_management.load_models_gpu([model])
    return {
        name.removeprefix(SAVED_PREFIX): tensor.to("cpu").detach().to(dtype, copy=True)
        for name, tensor in model.state_dict_for_saving().items()
        if name.startswith(SAVED_PREFIX)
    }
