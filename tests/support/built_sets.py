"""A built training set without a build: shards of plain pictures, and the report that belongs to them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fpga.commands.dataset.report import REPORT, write_report
from fpga.fpga_core.training.data.samples import TrainingSample
from fpga.fpga_core.training.data.writing import write_header, write_shard

SIDE_PX, SHARD_SIZE = 64, 250
LEFT_OUT = "clarity", "clarity", "faces", "duplicate"


def sha_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def sample_of(number: int) -> TrainingSample:
    """A picture of one colour, with a white line as its skeleton and a red one as its landmarks."""
    image = np.full((SIDE_PX, SIDE_PX, 3), (number % 200, 90, 40), np.uint8)
    skeleton, landmarks = np.zeros_like(image), np.zeros_like(image)
    skeleton[:, 30:33], landmarks[20:23] = 255, (255, 0, 0)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[16:48, 16:48] = 255
    return TrainingSample(
        key=f"{number:09}",
        caption=f"person {number}",
        image=image,
        skeleton=skeleton,
        landmarks=landmarks,
        mask=mask,
        face=image[16:48, 16:48],
    )


def write_set(folder: Path, num: int) -> list[dict[str, Any]]:
    """Writes `num` samples and a report, which also lists one picture for each of LEFT_OUT; returns its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for start in range(0, num, SHARD_SIZE):
        numbers = range(start, min(start + SHARD_SIZE, num))

        def samples(numbers: range = numbers) -> Iterator[tuple[TrainingSample, dict[str, Any]]]:
            for number in numbers:
                yield sample_of(number), {"file": f"{number}.jpg", "sha256": sha_of(number)}

        shard = f"{start // SHARD_SIZE:05}.tar"
        write_shard(folder / shard, samples())
        rows += [
            {
                "number": number,
                "step": None,
                "file": f"{number}.jpg",
                "set": "singles",
                "shard": shard,
                "key": f"{number:09}",
                "sha256": sha_of(number),
                "caption": f"person {number}",
                "source": "made for a test",
                "face_length": 20.0 + number % 50,
                "roll": float(number % 40 - 20),
            }
            for number in numbers
        ]
    rows += [
        {"number": num + place, "file": f"{num + place}.jpg", "step": step, "detail": "as planned"}
        for place, step in enumerate(LEFT_OUT)
    ]
    rows[-1]["duplicate_of"] = 0
    write_header(folder, recogniser=None, source="made for a test")
    write_report(folder / REPORT, [rows])
    return rows
