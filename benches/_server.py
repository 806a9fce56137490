"""A ComfyUI server with the stand-ins, and its memory while one prompt after another is queued.

The memory is the resident set of the server's process tree, as the operating system counts it. Two effects would hide a
leak, and are removed. The C library keeps freed memory for later, so it is told to return large blocks at once. Python
collects cycles only now and then, so the smallest of every ten samples counts.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from fpga.devtools.server import ComfyServer
from fpga.devtools.stand_ins import PACKS, place_stand_ins

MIB = 2**20
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""These are for glibc; other C libraries ignore them."""

TIMEOUT_S = 3600
"""The timeout of a prompt, for a machine that has other work for a while."""

SAMPLES = 10
PROGRESS = 50


@contextmanager
def serving() -> Iterator[ComfyServer]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place_stand_ins(base)
        os.environ.update(RETURN_FREED_MEMORY)  # the server inherits it
        with ComfyServer(base, packs=PACKS) as server:
            yield server


def resident_mib(server: ComfyServer) -> float:
    """Returns the memory of the server and of every process that it started."""
    process = psutil.Process(server.process_id)
    return sum(part.memory_info().rss for part in (process, *process.children(recursive=True))) / MIB


def sample(resident: list[float], server: ComfyServer) -> None:
    """Appends the server's current memory, and prints it now and then."""
    resident.append(resident_mib(server))
    if len(resident) % PROGRESS == 0:
        print(f"{len(resident)} prompts: {resident[-1]:.1f} MiB", flush=True)


def memory_row(resident: Sequence[float], warm_up: int, per: int, goal: float) -> dict:
    """Returns the table row of a memory curve.

    Args:
        resident: MiB after each prompt.
        warm_up: prompts at the start that do not count.
        per: the slope's unit of prompts.
        goal: the limit of the slope, in MiB per `per` prompts.
    """
    counted = resident[warm_up:]
    size = min(SAMPLES, len(counted) // 2)
    least = [min(counted[start : start + size]) for start in range(0, len(counted) - size + 1, size)]
    slope = float(np.polyfit(np.arange(len(least)) * size, least, 1)[0])
    return {
        "prompts": len(resident),
        "MiB at first": round(least[0], 1),
        "MiB at last": round(least[-1], 1),
        f"slope in MiB per {per}": round(slope * per, 2),
        "below": goal,
    }
