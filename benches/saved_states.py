"""The time and the disk space that saved states take in the paper's training: 1.15 million iterations in two weeks.

The time to write a state, with its data flushed to the disk, and the time to copy it for a writer in the background are
measured with every eighth tensor of SD1.5's state (`--stride 1`: all, 13.7 GB of memory), and scaled by their bytes.
`--folder` is on the disk that is measured. While a state is written, there is one more than are kept.
"""

import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from _models import SMALL_UNET, openaimodel
from _report import arguments, report
from comfy.ops import disable_weight_init
from fpga.fpga_core.repcontrolnet.hint_encoder import HintEncoder
from fpga.fpga_core.training.engine.saved_states import StateWriter, TrainingState
from fpga.fpga_core.training.engine.settings import TrainingSettings
from fpga.fpga_core.training.method.fusion import MultiModeFusion
from unet_configs import SD15_UNET

WEEKS = 2
GB = 1e9
EVERY_MINUTES = (10, 30, 60)


def shapes(*, is_tiny: bool) -> list[torch.Size]:
    """Returns the shapes of what a whole branch trains: the network's layers again, and the hint encoder."""
    config = SMALL_UNET if is_tiny else SD15_UNET
    unet = openaimodel.UNetModel(**config, device="meta", operations=disable_weight_init)
    with torch.device("meta"):
        hint_encoder = HintEncoder()
    return [parameter.shape for module in (unet, hint_encoder) for parameter in module.parameters()]


def random_state(kept: list[torch.Size]) -> TrainingState:
    """Returns a state with the running mean and Adam's two moments."""

    def tensors() -> dict[str, torch.Tensor]:
        return {str(number): torch.rand(shape) for number, shape in enumerate(kept)}

    moments = zip(tensors().values(), tensors().values(), strict=True)
    optimizer = {number: {"exp_avg": first, "exp_avg_sq": second} for number, (first, second) in enumerate(moments)}
    return TrainingState(0, {}, tensors(), tensors(), {"state": optimizer, "param_groups": []})


def seconds_of(writer: StateWriter, state: TrainingState) -> tuple[float, float]:
    """Returns how long training waits for a state, and how long it takes until the state is on the disk."""
    began = time.perf_counter()
    writer.write(state)
    waited = time.perf_counter() - began
    writer.finish()
    return waited, time.perf_counter() - began


def main() -> None:
    options = arguments(__doc__, stride=8, folder=Path(tempfile.gettempdir()))
    every = shapes(is_tiny=options.tiny)
    kept = list(islice(every, 0, None, options.stride))
    scale = sum(shape.numel() for shape in every) / sum(shape.numel() for shape in kept)
    state = random_state(kept)
    waited: dict[bool, list[float]] = {False: [], True: []}
    written: list[float] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for _ in range(options.rounds):
            for in_background in (False, True):
                wait, whole = seconds_of(StateWriter(Path(folder), 1, in_background=in_background), state)
                waited[in_background].append(scale * wait)
                written.append(scale * whole)
        size = scale * next(Path(folder).glob("*.pt")).stat().st_size
    duration, iterations = WEEKS * 7 * 24 * 3600, MultiModeFusion().num_iterations
    settings = TrainingSettings(iterations=iterations)
    intervals = {f"every {settings.checkpoint_every} iterations": duration * settings.checkpoint_every / iterations}
    intervals |= {f"every {minutes} minutes": 60 * minutes for minutes in EVERY_MINUTES}
    rows = []
    for name, interval in intervals.items():
        for in_background, waits in waited.items():
            # a state is begun when the one before is written
            num, wait = duration / max(interval, median(written) if in_background else interval), median(waits)
            rows.append(
                {
                    "saved": name,
                    "in the background": "yes" if in_background else "no",
                    "states": round(num),
                    "s to wait for each": round(wait, 1),
                    "% of the time": round(100 * num * wait / duration, 2),
                    "TB written": round(num * size / 1e12, 1),
                    "GB kept at most": round((settings.num_checkpoints + 1) * size / GB, 1),
                }
            )
    speed = size / median(written) / 1e6
    title = f"States of {size / GB:.1f} GB on this disk ({speed:.0f} MB/s), {iterations} iterations in {WEEKS} weeks"
    report(title, rows, options.json)


if __name__ == "__main__":
    main()
