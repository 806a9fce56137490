"""Batches of the tiny models' sizes, with seeded random contents and a face in each picture."""

import torch
from fpga.fpga_core.training.data.batch import TrainingBatch


def tiny_batch(
    num: int = 2,
    width: int = 16,
    height: int = 16,
    seed: int = 0,
    context_dim: int = 64,
    clip_dim: int = 0,
    pooled_dim: int = 0,
) -> TrainingBatch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    masks = torch.zeros(num, 1, height, width)
    for row in range(num):
        top, left = row % 3 + 1, row % 4 + 2
        masks[row, :, top : top + height // 2, left : left + width // 2] = 1
    return TrainingBatch(
        latents=normal(num, 4, height, width),
        text=normal(num, 7, context_dim),
        null_text=normal(1, 7, context_dim),
        skeleton=uniform(num, 3, 8 * height, 8 * width),
        landmarks=(uniform(num, 1, 8 * height, 8 * width) > 0.95).float().repeat(1, 3, 1, 1),
        embeddings=20 * normal(num, 512),
        face_masks=masks,
        clip_features=normal(num, 9, clip_dim) if clip_dim else None,
        pooled=normal(num, pooled_dim) if pooled_dim else None,
        null_pooled=normal(1, pooled_dim) if pooled_dim else None,
    )
