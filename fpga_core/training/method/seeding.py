"""Random draws from torch's global generators, which layers take their first weights and their dropout from."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Generator[None, None, None]:
    """Within the block the global generators start from a seed; after it they go on as if nothing had been drawn.

    Args:
        seed: of the CPU's generator and of every GPU's.
        device: a GPU that the block draws on too; None, or the CPU: the block draws on the CPU alone.
    """
    gpus = [] if device is None or device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=gpus):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield
