"""Samples of training sets, with seeded random pictures."""

import numpy as np
from fpga.fpga_core.training.data.samples import TrainingSample
from fpga.fpga_core.training.data.writing import write_sample


def random_sample(number: int, width: int = 64, height: int = 64, has_embedding: bool = True, **changed):
    """A sample whose face is a square in the middle of its mask."""
    generator = np.random.default_rng(number)

    def picture(*shape):
        return generator.integers(0, 256, shape, dtype=np.uint8)

    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    values = {
        "key": f"{number:06}",
        "caption": f"portrait number {number}",
        "image": picture(height, width, 3),
        "skeleton": picture(height, width, 3),
        "landmarks": picture(height, width, 3),
        "mask": mask,
        "face": picture(96, 80, 3),
        "embedding": generator.standard_normal(512).astype(np.float32) if has_embedding else None,
    }
    return TrainingSample(**{**values, **changed})


def write_samples(folder, num: int = 5, **options):
    folder.mkdir(parents=True, exist_ok=True)
    samples = [random_sample(number, **options) for number in range(num)]
    for sample in samples:
        write_sample(folder, sample)
    return samples
