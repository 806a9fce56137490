"""The loop that trains the world's own small networks, which the method needs but the pack does not train.

Each step's randomness comes from (seed, step) alone, so that an interrupted run continues the same curve.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        num_steps: optimiser steps.
        learning_rate: the highest learning rate. It warms up, and falls along a cosine to a thirtieth.
        weight_decay: weight decay of AdamW.
        ema: decay of the averaged weights, which are the result. 0: no averaging.
        seed: seed of all random draws.
    """

    num_steps: int
    learning_rate: float
    weight_decay: float = 0.0
    ema: float = 0.999
    seed: int = 0

    def rate_at(self, step: int) -> float:
        warm = min(1.0, (step + 1) / 100)
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.num_steps))
        return self.learning_rate * warm * (cosine * 29 / 30 + 1 / 30)


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAVE_EVERY_S = 60
LOG_EVERY = 50


def autocast() -> torch.autocast:
    """Returns half precision if it is faster: on a GPU, and on a CPU that multiplies matrices in bfloat16 (AMX)."""
    is_faster = DEVICE.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=is_faster)


def fastest_attention() -> AbstractContextManager[None]:
    """Chooses plain attention on a CPU. For pictures this small it is a fifth faster than the fused form."""
    return nullcontext() if DEVICE.type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def train(
    module: nn.Module, recipe: Recipe, loss_of: Callable[[int, np.random.Generator], Tensor], file: Path
) -> nn.Module:
    """Trains a module, and resumes from `file` if it exists.

    Args:
        module: the module, whose parameters are trained in place and end as their average.
        recipe: how to train it.
        loss_of: returns the scalar loss, given the step and a generator. torch's global generator is seeded for each
            step too.
        file: the checkpoint. The log is beside it, with the suffix `.jsonl`.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)
    average = [parameter.detach().clone() for parameter in parameters]
    step = 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        average, step = state["average"], state["step"]
    log = file.with_suffix(".jsonl")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step), encoding="utf-8")
    losses: list[float] = []
    began = saved = time.monotonic()
    module.train()
    while step < recipe.num_steps:
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate_at(step)
        torch.manual_seed(recipe.seed * 10_000_019 + step)
        loss = loss_of(step, np.random.default_rng((recipe.seed, step)))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        decay = min(recipe.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1 - decay)
        losses.append(loss.item())
        if step % LOG_EVERY == 0 or step == recipe.num_steps:
            row = {"step": step, "loss": round(float(np.mean(losses)), 5), "seconds": round(time.monotonic() - began)}
            print(f"{file.stem}: {row}", flush=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            losses = []
        if time.monotonic() - saved > SAVE_EVERY_S or step == recipe.num_steps:
            state = {"module": module.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            part = file.with_suffix(".part")
            torch.save({**state, "step": step}, part)
            part.replace(file)
            saved = time.monotonic()
    if recipe.ema:
        with torch.no_grad():
            for parameter, averaged in zip(parameters, average, strict=True):
                parameter.copy_(averaged)
    return module.eval()
