"""A checkpoint file in Stable Diffusion's layout, joined from its parts."""

from __future__ import annotations

from torch import Tensor, nn


def checkpoint_tensors(*, unet: nn.Module, text_model: nn.Module, autoencoder: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint that ComfyUI's `CheckpointLoaderSimple` can load, in half precision.

    Args:
        unet: the diffusion model.
        text_model: CLIP's text model, without a projection.
        autoencoder: ComfyUI's VAE or TAESD.
    """
    parts = {
        "model.diffusion_model.": unet,
        "cond_stage_model.transformer.text_model.": text_model,
        "first_stage_model.": autoencoder,
    }
    return {
        prefix + name: tensor.half() for prefix, part in parts.items() for name, tensor in part.state_dict().items()
    }
