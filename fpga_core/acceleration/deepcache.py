"""DeepCache: most steps of a sampling run reuse the deep features of an earlier step.

The deep layers of a UNet change slowly from one noise level to the next. A full step runs all of it and keeps the
feature that comes up from the deep layers; a shallow step runs only the layers above and takes that feature in its
place.

Source: Ma, Fang, Wang, "DeepCache: Accelerating Diffusion Models for Free" (arXiv:2312.00858), section 3.2 and 3.3 with
uniform intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError

Keys = tuple[tuple[Hashable, int], ...]
"""One key for each prompt of a call: the prompt, and how many calls of the same evaluation have shown it before."""


@dataclass(frozen=True, kw_only=True)
class DeepCacheSettings:
    """Which steps are shallow, and how shallow.

    Attributes:
        interval: every so many steps, one is full; 1 makes every step full.
        branch: number of the deepest input block that a shallow step runs, from 0. A smaller number saves more time and
            changes the picture more.
    """

    interval: int = 3
    branch: int = 0

    def __post_init__(self) -> None:
        if self.interval < 1 or self.branch < 0:
            raise InvalidInputError(
                f"interval is {self.interval} and branch is {self.branch}; interval must be at least 1, and branch at "
                "least 0"
            )


class DeepCacheRun:
    """What one sampling run keeps of its last full step. It ends with the run.

    A step is one noise level: evaluations at the same sigma, one after another, are all full or all shallow, as in
    samplers of second order. The host may call the model several times in an evaluation (each prompt alone, areas,
    windows, tiles), in batches that change. So a feature is kept for each prompt and each of its calls. Where none is
    kept, because a prompt is new or another pack has changed the latent's size, the call is full.
    """

    def __init__(self, settings: DeepCacheSettings) -> None:
        self.settings = settings
        self._sigma: float | None = None
        self._number = 0
        self._is_active = False
        self._features: dict[tuple[Hashable, int], tuple[torch.Size, Tensor]] = {}
        self._seen: Counter[Hashable] = Counter()

    def begin_evaluation(self, sigma: float, *, is_active: bool) -> None:
        """Says that the sampler evaluates the model.

        Args:
            sigma: the noise level.
            is_active: whether steps may be shallow at this level; the first step of such a part of the run is full.
        """
        if sigma != self._sigma:
            self._number = self._number + 1 if is_active and self._is_active else 0
            self._sigma, self._is_active = sigma, is_active
            if self.is_full:
                self._features.clear()
        self._seen.clear()

    @property
    def is_full(self) -> bool:
        """Whether the current step runs the whole UNet."""
        return not self._is_active or self._number % self.settings.interval == 0

    @property
    def is_keeping(self) -> bool:
        """Whether the features of full calls are needed."""
        return self._is_active

    def keys(self, prompts: Sequence[Hashable]) -> Keys:
        """Returns the keys of a call that shows the model these prompts, one after another in its batch."""
        keys = tuple((prompt, self._seen[prompt]) for prompt in prompts)
        self._seen.update(prompts)
        return keys

    def feature(self, keys: Keys, x: Tensor) -> Tensor | None:
        """Returns the kept feature of a call, a copy, or None if the call must be full.

        Args:
            keys: as `keys` gave them for this call.
            x: the call's input, (prompts x batch, channels, height, width).
        """
        kept = [self._features.get(key) for key in keys]
        shape = torch.Size((len(x) // len(keys), *x.shape[1:]))
        if self.is_full or any(one is None or one[0] != shape for one in kept):
            return None
        return torch.cat([feature.to(x.device) for _, feature in filter(None, kept)])

    def keep(self, keys: Keys, x: Tensor, feature: Tensor) -> None:
        """Keeps the feature of a full call, (prompts x batch, channels, height, width)."""
        shape = torch.Size((len(x) // len(keys), *x.shape[1:]))
        for key, part in zip(keys, feature.chunk(len(keys)), strict=True):
            self._features[key] = shape, part
