"""The time of a sampler's steps."""

import time

import comfy.sample
import torch
from _report import synchronise

NUM_STEPS = 3


def step_seconds(model, positive: list, negative: list, noise: torch.Tensor) -> tuple[float, float]:
    """Seconds a step, from the end of a run's first step to the end of its last: by the clock and of processor time."""
    moments = []

    def note(*_: object) -> None:
        synchronise()
        moments.append((time.perf_counter(), time.process_time()))

    comfy.sample.sample(
        model,
        noise,
        NUM_STEPS,
        5.0,
        "euler",
        "normal",
        positive,
        negative,
        torch.zeros_like(noise),
        callback=note,
        disable_pbar=True,
        seed=0,
    )
    return tuple((last - first) / (len(moments) - 1) for first, last in zip(moments[0], moments[-1], strict=True))
