"""Weights quantized as the host quantizes them, computed in full precision and rounded once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from torch import Tensor


class WeightFormat(str, Enum):
    """How the weights of a saved model are stored."""

    AS_LOADED = "as_loaded"
    FP8 = "float8_e4m3fn"
    """8-bit floating-point numbers, with one scale for each layer."""
    INT8 = "int8_tensorwise"
    """8-bit integers, with one scale for each output channel, which the host's kernels multiply as integers."""


QUANTIZED = re.compile(r"(^|\.)diffusion_model\..*\.transformer_blocks\.\d+\..*\.weight$")
"""The layers that are quantized: the linear ones of the transformer blocks, as files of the host's community do."""


def quantize_weights(tensors: Mapping[str, Tensor], form: WeightFormat) -> dict[str, Tensor]:
    """Returns a model file's tensors with the linear layers of its transformer blocks quantized.

    Each weight is rounded to the nearest value of the format, once. Convolutions, norms, biases and embeddings keep
    their dtype, because the host's quantized layers are linear ones.

    Args:
        tensors: weights by their names in a checkpoint, in full or half precision.
        form: a format other than AS_LOADED.
    Returns:
        The tensors in the layout that the host's loader recognises: the quantized weight, its scale, and the format.
    """
    algorithm: dict[str, Any] = QUANT_ALGOS[form.value]
    scales = {"per_channel": True} if form is WeightFormat.INT8 else {"scale": "recalculate"}
    kind = torch.tensor(list(json.dumps({"format": form.value}).encode()), dtype=torch.uint8)
    quantized: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not QUANTIZED.search(name):
            quantized[name] = tensor
            continue
        layer = name.removesuffix(".weight")
        rounded: Any = QuantizedTensor.from_float(tensor.float(), algorithm["comfy_tensor_layout"], **scales)
        weight, params = rounded._qdata, rounded._params  # pyright: ignore[reportPrivateUsage]
        quantized |= {name: weight, f"{layer}.weight_scale": params.scale, f"{layer}.comfy_quant": kind.clone()}
    return quantized
