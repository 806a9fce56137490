"""The world's base model: an SD1.5-family UNet and its text encoder, trained together on captioned pictures."""

from __future__ import annotations

from pathlib import Path

import comfy.model_base
import comfy.ops
import comfy.taesd.taesd
import numpy as np
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..fpga_core.checkpoints import write_safetensors
from ..fpga_core.training.data.reading import TrainingSet
from . import comfyui_node as node
from .autoencoder import SD15_SCALE, as_tensor
from .checkpoint_file import checkpoint_tensors
from .loop import DEVICE, Recipe, autocast, train

RECIPE = Recipe(num_steps=5500, learning_rate=5e-4, weight_decay=0.01, ema=0.999)
BATCH = 64
TEXT_DROPPED = 0.1


class BaseModel(nn.Module):
    """The UNet and the text encoder, named as in a checkpoint file."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNetModel(**node.UNET_CONFIG, operations=comfy.ops.disable_weight_init)
        self.text = node.WorldTextTransformer(node.TEXT_CONFIG, torch.float32, None, comfy.ops.disable_weight_init)
        self.text.text_projection.weight.requires_grad_(False)

    def forward(self, latent: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(latent, timestep, context=self.text.text_model(tokens)[0])


def initial_base() -> BaseModel:
    """Returns an untrained base. Layers that end a residual branch start at zero."""
    base = BaseModel()
    for module in base.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5) if module.weight.ndim == 4 else nn.init.xavier_uniform_(
                module.weight
            )
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    for module in base.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.out_layers[-1].weight)
        elif isinstance(module, SpatialTransformer):
            nn.init.zeros_(module.proj_out.weight)
    nn.init.zeros_(base.unet.out[-1].weight)
    embeddings = base.text.text_model.embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=0.5)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.1)
    nn.init.eye_(base.text.text_projection.weight)
    return base.to(DEVICE)


def tokens_of(captions: list[str]) -> Tensor:
    """Returns token ids, (captions, MAX_TOKENS) int64."""
    tokenizer = node.WordTokenizer()
    end = node.WORDS.index("<end>")
    rows = [tokenizer(caption)["input_ids"][: node.MAX_TOKENS] for caption in captions]
    return torch.tensor([row + [end] * (node.MAX_TOKENS - len(row)) for row in rows])


@torch.no_grad()
def latents_of(autoencoder: comfy.taesd.taesd.TAESD, pictures: np.ndarray) -> Tensor:
    """Returns latents as the UNet sees them, with a deviation of 1, (num, 4, 16, 16), of (num, 128, 128, 3) uint8."""
    with autocast():
        return autoencoder.encode(as_tensor(pictures) * 2 - 1).float().cpu() * SD15_SCALE


def alphas_cumprod() -> Tensor:
    """Returns SD1.5's noise schedule."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


def train_base(autoencoder: comfy.taesd.taesd.TAESD, lessons: Path, file: Path) -> BaseModel:
    """Trains a new base to predict the noise in the latents of a training set, given its captions."""
    data = TrainingSet(lessons)
    parts: list[Tensor] = []
    captions: list[str] = []
    for start in range(0, len(data), BATCH):
        samples = [data.read(index) for index in range(start, min(start + BATCH, len(data)))]
        parts.append(latents_of(autoencoder, np.stack([sample.image for sample in samples])))
        captions += [sample.caption for sample in samples]
    base, latents, tokens = initial_base(), torch.cat(parts), tokens_of(captions)
    empty = tokens_of([""])[0]
    kept = alphas_cumprod()

    def loss_of(step: int, rng: np.random.Generator) -> Tensor:
        chosen = torch.from_numpy(rng.integers(0, len(latents), BATCH))
        timestep = torch.from_numpy(rng.integers(0, 1000, BATCH))
        text = tokens[chosen].clone()
        text[torch.from_numpy(rng.random(BATCH) < TEXT_DROPPED)] = empty
        clean, noise = latents[chosen], torch.randn(BATCH, *latents.shape[1:])
        part = kept[timestep][:, None, None, None]
        noisy = part.sqrt() * clean + (1 - part).sqrt() * noise
        with autocast():
            predicted = base(noisy.to(DEVICE), timestep.float().to(DEVICE), text.to(DEVICE))
        return mse_loss(predicted.float(), noise.to(DEVICE))

    return train(base, RECIPE, loss_of, file)


def write_checkpoint(base: BaseModel, autoencoder: comfy.taesd.taesd.TAESD, file: Path) -> None:
    """Writes a checkpoint file in half precision that `CheckpointLoaderSimple` can load."""
    tensors = checkpoint_tensors(unet=base.unet, text_model=base.text.text_model, autoencoder=autoencoder)
    # The scale and the shift keep full precision: they are single numbers, and half precision would cost digits.
    tensors |= {f"first_stage_model.vae_{name}": getattr(autoencoder, f"vae_{name}") for name in ("scale", "shift")}
    write_safetensors(file, tensors, {})
