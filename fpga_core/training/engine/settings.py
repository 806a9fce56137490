"""The settings of a training run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from ...errors import InvalidInputError
from .optimizers import OptimizerKind

FREE = (
    "iterations",
    "cooldown",
    "accumulation",
    "checkpoint_every",
    "checkpoint_minutes",
    "num_checkpoints",
    "saves_in_background",
    "sample_every",
    "validate_every",
    "is_average_on_cpu",
    "is_sharded",
)
"""The settings that can change when a training is resumed."""

LATER = ("schedule", "rates", "optimizer", "held_out")
"""Settings that are named only if they are set, so that states from before these settings go on."""


class Precision(str, Enum):
    """What the network computes in; trained parameters are always float32."""

    FLOAT32 = "no"
    BFLOAT16 = "bf16"
    FLOAT16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]


class Schedule(str, Enum):
    """The course of the learning rate after the warm-up."""

    CONSTANT = "constant"
    """It stays, until the cool-down."""
    COSINE = "cosine"
    """It falls to 0 at the end, along half a cosine."""
    LINEAR = "linear"
    """It falls to 0 at the end, along a line."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of the engine. The defaults are the paper's if it names them (section 4.1: Adam, 1e-4).

    Attributes:
        iterations: number of iterations in all stages; it and `cooldown` can be raised when a training is resumed.
        batch_size: samples per process and micro-batch; the batch of an iteration is this times the number of processes
            times `accumulation`.
        accumulation: micro-batches per iteration and process.
        learning_rate: the learning rate after the warm-up.
        rates: learning rates of parts instead, by the beginnings of their parameters' names ("branch", "identity").
        new_layers_factor: factor on it for layers that start from random weights, not from copies of the base.
        schedule: the course of the learning rate; with another one than a constant, `iterations` cannot be raised.
        warmup: iterations over which the learning rate rises from near 0.
        cooldown: iterations at the end over which it falls to near 0.
        optimizer: the form of AdamW.
        betas: betas of Adam.
        weight_decay: weight decay of AdamW; 0 gives Adam.
        max_grad_norm: gradients are scaled down to this norm.
        ema_decay: decay of the running mean of the parameters, which is exported; 0 keeps none.
        is_average_on_cpu: whether the running mean is kept in CPU memory.
        seed: seed of the sample order and of every random draw.
        precision: precision of the computation.
        checkpoint_every: iterations between saved states; one is always saved at the end and when training is stopped.
        checkpoint_minutes: minutes between saved states, instead of iterations; 0 counts iterations.
        num_checkpoints: number of saved states to keep.
        saves_in_background: whether training goes on while a state is written, which needs memory for a copy of it.
        sample_every: iterations between sample pictures; 0 draws none.
        held_out: number of samples that are not trained on, and are drawn by the seed.
        validate_every: iterations between losses on the samples held out; 0 computes none.
        is_sharded: whether parameters, their running mean and the optimizer are split over the processes (FSDP).
    Raises:
        InvalidInputError: a value is out of its range; the message names it.
    """

    iterations: int
    batch_size: int = 1
    accumulation: int = 1
    learning_rate: float = 1e-4
    rates: tuple[tuple[str, float], ...] = ()
    new_layers_factor: float = 1.0
    schedule: Schedule = Schedule.CONSTANT
    warmup: int = 0
    cooldown: int = 0
    optimizer: OptimizerKind = OptimizerKind.ADAMW
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    is_average_on_cpu: bool = False
    seed: int = 0
    precision: Precision = Precision.FLOAT32
    checkpoint_every: int = 500
    checkpoint_minutes: float = 0.0
    num_checkpoints: int = 2
    saves_in_background: bool = False
    sample_every: int = 0
    held_out: int = 0
    validate_every: int = 0
    is_sharded: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "accumulation", "checkpoint_every", "num_checkpoints"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in (
            "warmup",
            "cooldown",
            "sample_every",
            "validate_every",
            "held_out",
            "weight_decay",
            "checkpoint_minutes",
        ):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("learning_rate", "new_layers_factor", "max_grad_norm"):
            self._check(name, getattr(self, name) > 0, "above 0")
        self._check("ema_decay", 0 <= self.ema_decay < 1, "from 0 to below 1")
        if self.is_sharded:
            self._check_sharded()
        for part, rate in self.rates:
            if not rate > 0:
                raise InvalidInputError(f"the learning rate of '{part}' is {rate:g}; it must be above 0")
        if self.schedule is not Schedule.CONSTANT and self.cooldown:
            raise InvalidInputError(f"the schedule {self.schedule.value} falls to 0 by itself; leave out the cool-down")
        if self.validate_every and not self.held_out:
            raise InvalidInputError("to validate, hold samples out of the training; name their number")
        self._check("betas", all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1")

    def _check_sharded(self) -> None:
        if self.precision is Precision.FLOAT16:
            raise InvalidInputError("use the precision bf16 to split parameters over processes; fp16 cannot")
        if self.optimizer is OptimizerKind.EIGHT_BIT:
            raise InvalidInputError("parameters that are split over processes have no 8-bit optimizer; use adamw-fused")
        if self.is_average_on_cpu:
            raise InvalidInputError("the running mean of parameters that are split over processes stays on their GPUs")

    def _check(self, name: str, is_right: bool, expected: str) -> None:
        if not is_right:
            raise InvalidInputError(f"{name} is {getattr(self, name)}; it must be {expected}")

    def learning_rate_at(self, iteration: int) -> float:
        """Returns the learning rate of an iteration (from 0)."""
        rising = (iteration + 1) / (self.warmup + 1)
        falling = (self.iterations - iteration) / (self.cooldown + 1)
        progress = max(iteration - self.warmup, 0) / max(self.iterations - self.warmup, 1)
        course = {
            Schedule.CONSTANT: 1.0,
            Schedule.COSINE: (1 + math.cos(math.pi * progress)) / 2,
            Schedule.LINEAR: 1 - progress,
        }[self.schedule]
        return self.learning_rate * min(1.0, rising, falling) * course

    def rate_factor(self, name: str) -> float:
        """Returns the factor on the learning rate for a parameter, which is not 1 if its part has its own rate."""
        rates = [rate for part, rate in self.rates if name == part or name.startswith(f"{part}.")]
        return rates[-1] / self.learning_rate if rates else 1.0

    def decisive(self, num_processes: int) -> Mapping[str, Any]:
        """Returns what the loss curve depends on, by name. A training resumes only with the same values."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in FREE and (field.name not in LATER or value != field.default):
                values[field.name] = value.value if isinstance(value, Enum) else value
        if self.schedule is not Schedule.CONSTANT:
            values["iterations"] = self.iterations
        if self.rates:
            values["rates"] = dict(self.rates)
        return {**values, "betas": list(self.betas), "processes x accumulation": num_processes * self.accumulation}
