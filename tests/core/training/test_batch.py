"""Batches that do not fit together are refused, with the figures."""

from dataclasses import replace

import pytest
import torch
from fpga.fpga_core.errors import ShapeMismatchError
from fpga.fpga_core.shapes import Extent
from training_batches import tiny_batch


def test_a_batch_knows_its_size():
    batch = tiny_batch(3, width=24, height=16, clip_dim=8)
    assert len(batch) == 3 and batch.extent == Extent(24, 16)
    moved = batch.to("meta")
    assert moved.device.type == "meta" and moved.clip_features.device.type == "meta"
    assert tiny_batch().to("cpu").clip_features is None


@pytest.mark.parametrize(
    "name, shape",
    [
        ("latents", (2, 4, 16)),
        ("text", (3, 7, 64)),
        ("null_text", (1, 7, 32)),
        ("skeleton", (2, 3, 128, 120)),
        ("landmarks", (2, 1, 128, 128)),
        ("embeddings", (2, 128)),
        ("face_masks", (2, 1, 128, 128)),
        ("clip_features", (3, 9, 8)),
    ],
)
def test_what_does_not_fit_is_refused(name, shape):
    with pytest.raises(ShapeMismatchError, match=name):
        replace(tiny_batch(), **{name: torch.zeros(shape)})
