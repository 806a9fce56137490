"""Samples a second that a training of SD1.5 at 512x512 reads on one core: from its pictures, and from encoded shards.

The encodings are random numbers of the true sizes, and are made before the clock runs. The skeletons and landmarks are
drawn by the pack. Nothing is kept in memory by the pack; the files are in the operating system's cache, as those of a
fast disk could be.
"""

import tempfile
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from _report import arguments, interleaved, ratio_rows, report
from fpga.fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.data.encoded_set import EncodedSet
from fpga.fpga_core.training.data.encoded_shards import EncodedShards
from fpga.fpga_core.training.data.encodings import EncodingStore
from fpga.fpga_core.training.data.reading import TrainingSet
from fpga.fpga_core.training.data.writing import ShardWriter
from training_samples import random_sample

BATCH_SIZE = 8


class RandomEncoder:
    """Encodings of SD1.5's sizes."""

    image_key, text_key, face_key = "image", "text", "face"

    def encode_image(self, image):
        return torch.randn(4, image.shape[0] // 8, image.shape[1] // 8)

    def encode_caption(self, caption):
        return torch.randn(77, 768)

    def encode_pooled(self, caption):
        return None

    def encode_face(self, sample):
        return {"embedding": torch.as_tensor(sample.embedding)}


def drawn_sample(number: int, size: int):
    """A sample with smooth pictures, as photographs are, and with landmarks and limbs of a usual size."""
    generator = np.random.default_rng(number)
    coarse = torch.as_tensor(generator.random((1, 3, size // 32, size // 32)))
    image = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    center, spread = generator.uniform(0.3, 0.7, 2) * size, size / 8
    points = center + generator.normal(0, spread / 2, (68, 2))
    face = Face(Box(*(center - spread), *(center + spread)), landmarks=points)
    drawings = {}
    for name, style in (("landmarks", FaceStyle.OPENPOSE), ("skeleton", FaceStyle.CURVES)):
        pixels = draw_conditions([PictureFaces(Extent(size, size), (face,))], DrawnParts.FACE, style)[0]
        drawings[name] = (pixels.numpy() * 255).round().astype(np.uint8)
    return random_sample(number, size, size, image=(image.numpy() * 255).astype(np.uint8), **drawings)


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    size, num = (64, 8) if options.tiny else (512, 64)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        with ShardWriter(data) as writer:
            for number in range(num):
                writer.write(drawn_sample(number, size))
        opened = TrainingSet(data)
        pictures = EncodedSet(opened, RandomEncoder(), EncodingStore(Path(folder) / "store"), memory_mib=0)
        source = EncodedSet(opened, RandomEncoder(), None)
        shards = {
            "encoded shards": EncodedShards(source, Path(folder) / "shards", memory_mib=0),
            "with text in 16 bits": EncodedShards(
                source, Path(folder) / "half", memory_mib=0, text_dtype=torch.float16
            ),
            "kept in memory": EncodedShards(source, Path(folder) / "shards"),
        }
        alternatives = {"pictures": pictures, **shards}
        starts = {name: cycle(range(0, num, BATCH_SIZE)) for name in alternatives}

        def read(name: str) -> None:
            first = next(starts[name])
            alternatives[name].batch(range(first, first + BATCH_SIZE))

        for batches in alternatives.values():
            for first in range(0, num, BATCH_SIZE):
                batches.batch(range(first, first + BATCH_SIZE))
        rounds = options.rounds * num // BATCH_SIZE
        seconds = interleaved({name: lambda name=name: read(name) for name in alternatives}, rounds)
        stored = {
            name: Path(folder) / path for name, path in (("encoded shards", "shards"), ("with text in 16 bits", "half"))
        }
        rows = []
        for row in ratio_rows(seconds, "pictures"):
            files = stored[row["what"]].glob("*.tar") if row["what"] in stored else ()
            kib = sum(file.stat().st_size for file in files) / num / 1024
            rows.append({**row, "samples/s": round(BATCH_SIZE / row["seconds"]), "KiB a sample": round(kib) or ""})
        report(f"Batches of {BATCH_SIZE} at {size}x{size}, one thread", rows, options.json)


if __name__ == "__main__":
    main()
