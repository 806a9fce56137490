"""The test model itself: deterministic, and every parameter takes part."""

import torch
from tiny_models import conditioning, sample, tiny_model


def test_sampling_is_deterministic_and_depends_on_conditioning():
    positive, negative = conditioning(1), conditioning(2)
    first, second = (sample(tiny_model(), positive, negative) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.allclose(first, sample(tiny_model(), conditioning(3), negative))
