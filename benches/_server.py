"""A ComfyUI server with the stand-ins, and the memory that it holds while one prompt after another is queued."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from fpga.devtools.server import ComfyServer
from fpga.devtools.stand_ins import PACKS, place_stand_ins

MIB = 2**20


@contextmanager
def serving() -> Iterator[ComfyServer]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place_stand_ins(base)
        with ComfyServer(base, packs=PACKS) as server:
            yield server


def resident_mib(server: ComfyServer) -> float:
    """Memory of the server and every process that it started."""
    process = psutil.Process(server.process_id)
    return sum(part.memory_info().rss for part in (process, *process.children(recursive=True))) / MIB


def memory_row(resident: Sequence[float], warm_up: int, per: int, goal: float) -> dict:
    """What a memory curve says.

    Args:
        resident: MiB after each prompt.
        warm_up: prompts at the start that do not count.
        per: the slope's unit of prompts.
        goal: what the slope shall stay below, in MiB per `per` prompts.
    """
    counted = resident[warm_up:]
    slope = float(np.polyfit(np.arange(len(counted)), counted, 1)[0])
    return {
        "prompts": len(resident),
        f"MiB after {warm_up}": round(resident[warm_up - 1], 1),
        "MiB at the end": round(resident[-1], 1),
        f"slope in MiB per {per}": round(slope * per, 2),
        "below": goal,
    }
