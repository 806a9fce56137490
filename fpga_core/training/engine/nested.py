"""Nested tables and lists of tensors, which the states of trainings are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    """Returns nested tables and lists in which each tensor is changed; everything else stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: with_tensors(part, change) for key, part in cast("Mapping[Any, Any]", value).items()}
    return [with_tensors(part, change) for part in cast("list[Any]", value)] if isinstance(value, list) else value
