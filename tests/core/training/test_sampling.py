"""Sample pictures in training: a network that knows the noise gives back the picture."""

from dataclasses import dataclass

import pytest
import torch
from fpga.fpga_core.training.data.batch import TrainingBatch
from fpga.fpga_core.training.method.curriculum import Curriculum
from fpga.fpga_core.training.method.noising import NoiseSchedule, Prediction
from fpga.fpga_core.training.method.sampling import generate, sample_grid


def batch(num: int = 2) -> TrainingBatch:
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(num, 3, 64, 64, generator=generator)
    return TrainingBatch(
        latents=torch.randn(num, 4, 8, 8, generator=generator),
        text=torch.randn(num, 7, 64, generator=generator),
        null_text=torch.zeros(1, 7, 64),
        skeleton=pictures,
        landmarks=pictures,
        embeddings=torch.randn(num, 512, generator=generator),
        face_masks=torch.ones(num, 1, 8, 8),
    )


@dataclass
class Oracle:
    """A network that knows the pictures, and what noise is in what it is shown; without text it sees their negative."""

    base: object
    latents: torch.Tensor
    curriculum: Curriculum = Curriculum()
    identity: object = None

    def predict(self, x, timesteps, *, text, hint, identity, pooled=None, record=None):
        alpha = self.base.schedule.alphas_cumprod[timesteps][:, None, None, None]
        x0 = torch.cat([self.latents, -self.latents])
        eps = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        self.texts = text
        is_v = self.base.schedule.prediction is Prediction.V
        return (alpha.sqrt() * eps - (1 - alpha).sqrt() * x0 if is_v else eps).float()


@dataclass
class Base:
    schedule: NoiseSchedule


@pytest.mark.parametrize("prediction", Prediction)
def test_a_network_that_knows_the_picture_gives_it_back(prediction):
    given = batch()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    schedule = NoiseSchedule((1 - betas).cumprod(0), prediction)
    oracle = Oracle(Base(schedule), given.latents)
    found = generate(oracle, given, 0, seed=1, num_steps=10, guidance=1.0)
    torch.testing.assert_close(found, given.latents, atol=1e-3, rtol=1e-3)
    assert torch.equal(oracle.texts[0], given.text[0]) and not oracle.texts[2:].any()
    guided = generate(oracle, given, 0, seed=1, num_steps=10, guidance=2.0)
    torch.testing.assert_close(guided, 3 * given.latents, atol=1e-2, rtol=1e-2)  # -x + 2 (x + x)


def test_the_grid_has_conditions_results_and_pictures():
    given = batch()
    schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 100, dtype=torch.float64), Prediction.V)
    decoded = []

    def decode(latents):
        decoded.append(latents)
        return torch.full((len(latents), 64, 64, 3), 0.5)

    grid = sample_grid(Oracle(Base(schedule), given.latents), given, 0, seed=1, decode=decode)
    assert grid.size == (128, 192) and len(decoded) == 2 and torch.equal(decoded[1], given.latents)
    assert grid.getpixel((70, 100)) == (128, 128, 128)
    expected = (given.landmarks[1, :, 5, 6] * 255).round().int().tolist()
    assert list(grid.getpixel((64 + 6, 5))) == expected
