"""Samples of training sets, with seeded random pictures."""

import numpy as np
import torch
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


class CountingEncoder:
    """Encodes by averaging, and counts."""

    image_key, text_key, face_key = "mean", "length", "copy"

    def __init__(self, has_clip=False):
        self.images, self.captions, self.faces = [], [], []
        self.has_clip = has_clip

    def encode_image(self, image):
        self.images.append(image)
        pixels = torch.from_numpy(image).float().movedim(-1, 0)[None] / 255
        return torch.nn.functional.avg_pool2d(pixels, 8)[0][[0, 1, 2, 0]]

    def encode_caption(self, caption):
        self.captions.append(caption)
        return torch.full((3, 8), float(len(caption)))

    def encode_pooled(self, caption):
        return None

    def encode_face(self, sample):
        self.faces.append(sample.key)
        encoding = {"embedding": torch.from_numpy(sample.embedding)}
        return {**encoding, "clip": torch.ones(5, 6)} if self.has_clip else encoding
