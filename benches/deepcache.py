"""DeepCache on a full-size SD1.5 at 512x512, guidance's batch of two: full and shallow steps, and whole runs.

A run of `--steps` steps is timed for each branch, in turn with the plain model, so that a machine that slows down slows
all of them. `step` is the median step of a run, `run` the whole run. The weights are random, because they do not change
the time; `dev.py world evaluate deepcache` measures what the pictures lose.
"""

import statistics
import time

import comfy.sample
import torch
from _models import SMALL_UNET, random_model
from _report import arguments, in_turn, report
from fpga.fpga_core.acceleration.deepcache import DeepCacheSettings
from fpga.fpga_core.patching.acceleration.deepcache import apply_deepcache
from unet_configs import SD15_UNET

BRANCHES = (0, 1, 2, 3, 5, 8)
PLAIN = "plain"


def step_seconds(model, texts: tuple, noise: torch.Tensor, num_steps: int) -> list[float]:
    """Seconds of each step of a run but the first, which also loads the model."""
    moments = []

    def callback(*_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        moments.append(time.perf_counter())

    blank = torch.zeros_like(noise)
    comfy.sample.sample(
        model, noise, num_steps, 5.0, "euler", "normal", *texts, blank, callback=callback, disable_pbar=True, seed=0
    )
    return [later - earlier for earlier, later in zip(moments[:-1], moments[1:], strict=True)]


def main() -> None:
    options = arguments(__doc__, steps=7, interval=3)
    model, size = (random_model(SMALL_UNET), 16) if options.tiny else (random_model(SD15_UNET), 64)
    texts = tuple([[torch.randn(1, 77, 768), {}]] for _ in range(2))
    noise, interval = torch.randn(1, 4, size, size), options.interval
    alternatives = {PLAIN: model} | {
        f"branch {branch}": apply_deepcache(model, DeepCacheSettings(interval=interval, branch=branch))
        for branch in BRANCHES
    }
    for patched in alternatives.values():  # a warm-up each
        step_seconds(patched, texts, noise, interval + 1)
    measured: dict[str, list[list[float]]] = {name: [] for name in alternatives}
    for name in in_turn(alternatives, options.rounds):
        measured[name].append(step_seconds(alternatives[name], texts, noise, options.steps))
    plain = [statistics.median(steps) for steps in measured[PLAIN]]
    num_full = -(-25 // interval)
    rows = []
    for name, runs in measured.items():
        # The first step is full and not in the list.
        shallow = [
            statistics.median(step for number, step in enumerate(steps, 1) if name == PLAIN or number % interval)
            for steps in runs
        ]
        full = [
            statistics.median(step for number, step in enumerate(steps, 1) if name == PLAIN or number % interval == 0)
            for steps in runs
        ]
        over = statistics.median(one / base for one, base in zip(shallow, plain, strict=True))
        full_over = statistics.median(one / base for one, base in zip(full, plain, strict=True))
        whole = 1.0 if name == PLAIN else (num_full * full_over + (25 - num_full) * over) / 25
        rows.append(
            {
                "what": name,
                "shallow step, s": round(statistics.median(shallow), 4),
                "over plain": round(over, 4),
                "full step over plain": round(full_over, 4),
                "25 steps, times faster": round(1 / whole, 3),
            }
        )
    dtype = str(model.model.get_dtype_inference()).removeprefix("torch.")
    title = f"DeepCache at {size * 8}x{size * 8}, interval {interval}, {dtype}, {model.load_device}"
    report(f"{title}, {torch.get_num_threads()} threads", rows, options.json)


if __name__ == "__main__":
    main()
