"""Pictures to look at, by a network in training: DDIM with guidance, through the call that training itself makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.batch import TrainingBatch
from .denoising import DenoisingModel
from .fusion import condition_image
from .identity_network import ReadIdentity
from .noising import NoiseSchedule, Prediction

NUM_STEPS = 30
GUIDANCE = 5.0
"""The steps and guidance of the paper's section 4.1."""


def generate(
    model: DenoisingModel,
    batch: TrainingBatch,
    iteration: int,
    *,
    seed: int,
    num_steps: int = NUM_STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Generates latents with the current network, from the captions, conditions and identities of a batch.

    Args:
        model: the network.
        batch: what the pictures should show, on the device of the network's parameters.
        iteration: the iteration whose condition is shown (`MultiModeFusion.shown_at`).
        seed: seed of the initial noise.
        num_steps: number of DDIM steps.
        guidance: guidance scale; 1 is none.
    Returns:
        The shape of `batch.latents`, in the model's own scale.
    Source: DDIM, Eq. 12 with eta 0.
    """
    schedule = model.base.schedule
    hint = condition_image(batch, model.curriculum.fusion.shown_at(iteration)).repeat(2, 1, 1, 1)
    text = torch.cat([batch.text, batch.null_text.expand_as(batch.text)])
    pooled, identity = None, None
    if batch.pooled is not None and batch.null_pooled is not None:
        pooled = torch.cat([batch.pooled, batch.null_pooled.expand_as(batch.pooled)])
    if model.identity is not None:
        both = [model.identity.tokens(batch, torch.full((len(batch),), is_dropped)) for is_dropped in (False, True)]
        identity = ReadIdentity(model.identity, torch.cat(both), batch.face_masks.repeat(2, 1, 1, 1))
    times = [int(time) for time in torch.linspace(len(schedule.alphas_cumprod) - 1, 0, num_steps).round()]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
    for number, time in enumerate(times):
        timesteps = torch.full((2 * len(batch),), time)
        wanted, unwanted = model.predict(
            x.repeat(2, 1, 1, 1), timesteps, text=text, hint=hint, identity=identity, pooled=pooled
        ).chunk(2)
        x0, eps = _parts(schedule, time, x=x, predicted=unwanted + guidance * (wanted - unwanted))
        following = times[number + 1] if number + 1 < num_steps else None
        alpha = 1.0 if following is None else float(schedule.alphas_cumprod[following])
        x = alpha**0.5 * x0 + (1 - alpha) ** 0.5 * eps
    return x


def sample_grid(
    model: DenoisingModel,
    batch: TrainingBatch,
    iteration: int,
    *,
    seed: int,
    decode: Callable[[Tensor], Tensor],
) -> Image.Image:
    """A picture with one row of conditions, one of what the network makes of them, and one of the data's own pictures.

    Args:
        model, batch, iteration, seed: as in `generate`.
        decode: maps latents in the model's own scale to pictures, (batch, height, width, 3) in [0, 1].
    """
    generated = generate(model, batch, iteration, seed=seed)
    condition = condition_image(batch, model.curriculum.fusion.shown_at(iteration))
    rows = [condition.movedim(1, -1), decode(generated), decode(batch.latents)]  # BCHW -> BHWC
    pixels = torch.cat([torch.cat(list(row.float().cpu()), dim=1) for row in rows], dim=0)
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().numpy().astype(np.uint8))


def _parts(schedule: NoiseSchedule, time: int, *, x: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the picture and the noise in x that a prediction implies."""
    alpha = float(schedule.alphas_cumprod[time])
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    if schedule.prediction is Prediction.V:
        return signal * x - spread * predicted, spread * x + signal * predicted
    return (x - spread * predicted) / signal, predicted
