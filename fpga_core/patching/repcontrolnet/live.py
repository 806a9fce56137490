"""Runs a RepControlNet as a live branch beside the base weights, for step ranges that a fold cannot express."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import nn

from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.folding import fit_branch, foldable_parameters
from ..added_layers import Add, add_layers
from ..schedule import StepRange
from ..unet import unet_of
from .carried import remember_branch

TORCH_COMPILE_KWARGS = "torch_compile_kwargs"
"""Where the host's compile node leaves its options (`comfy_api.torch_helpers`, which only nodes may import)."""

logger = logging.getLogger(__name__)


class BranchLayers(nn.Module):
    """The copies of a UNet's convolutions and linear layers, as modules that the host can move and cast."""

    def __init__(self, unet: nn.Module, branch: RepControlNet) -> None:
        super().__init__()
        self.paths = tuple(dict.fromkeys(name.rpartition(".")[0] for name in branch.weights))
        self.layers = nn.ModuleList(branch_layer(unet.get_submodule(path), path, branch) for path in self.paths)


def branch_layer(base: nn.Module, path: str, branch: RepControlNet) -> nn.Module:
    """Returns a convolution or linear layer with the geometry of `base` and the branch's own tensors."""
    weight, bias = branch.weights[f"{path}.weight"], branch.weights.get(f"{path}.bias")
    if isinstance(base, nn.Linear):
        layer = comfy.ops.manual_cast.Linear(base.in_features, base.out_features, bias=bias is not None, device="meta")
    else:
        layer = comfy.ops.manual_cast.Conv2d(
            base.in_channels,
            base.out_channels,
            base.kernel_size,
            stride=base.stride,
            padding=base.padding,
            dilation=base.dilation,
            groups=base.groups,
            bias=bias is not None,
            device="meta",
        )
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


class LiveBranch:
    """Adds the branch's output to each base layer's own: `alpha (W x + b) + beta (W_m x + b_m)`.

    The sum is at the output of every convolution and linear layer, never after a GEGLU, so live and folded agree up to
    rounding.
    """

    def __init__(self, layers: BranchLayers, *, alpha: float, beta: float) -> None:
        self.layers, self.alpha, self.beta = layers, alpha, beta
        self.thread = threading.local()  # samplers may run in threads, one for each GPU

    @property
    def hooks(self) -> dict[str, Add]:
        """What is added to each layer, by the layer's path."""
        layers = zip(self.layers.paths, self.layers.layers, strict=True)
        return {path: partial(self._add_branch, layer) for path, layer in layers}

    def _add_branch(
        self, layer: nn.Module, base: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        if not getattr(self.thread, "is_active", True):
            return output
        return torch.add(output if self.alpha == 1 else output * self.alpha, layer(inputs[0]), alpha=self.beta)

    def within(self, steps: StepRange) -> Callable[..., torch.Tensor]:
        """Returns an APPLY_MODEL wrapper that limits the branch to a range of steps, and keeps the hooks in force.

        A compiled model does not notice hooks that come or go (dynamo does not guard on them), so what was compiled
        without the branch would run on without it. It therefore runs uncompiled here, also if the branch rests: what
        would be compiled now would be missing the branch later.
        """

        def run(
            executor: WrapperExecutor, x: torch.Tensor, sigma: torch.Tensor, *args: object, **kwargs: object
        ) -> torch.Tensor:
            self.thread.is_active = steps.contains(executor.class_obj.model_sampling, sigma)
            try:
                with torch.compiler.set_stance("force_eager"):
                    return executor(x, sigma, *args, **kwargs)
            finally:
                self.thread.is_active = True

        return run

    def warn_if_compiled(self, executor: WrapperExecutor, *args: object, **kwargs: object) -> torch.Tensor:
        """Warns that a compiled model runs uncompiled. It is an OUTER_SAMPLE wrapper."""
        if TORCH_COMPILE_KWARGS in executor.class_obj.model_options:
            logger.warning(
                "the model is compiled, but a live RepControlNet cannot be: this run is not compiled. Set "
                "start_percent to 0, end_percent to 1 and mode to 'folded' in Apply RepControlNet to run compiled"
            )
        return executor(*args, **kwargs)


def attach_branch(
    model: ModelPatcher,
    branch: RepControlNet,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> ModelPatcher:
    """Returns a clone of `model` with the branch running beside the base, only inside `steps`.

    Raises:
        UnsupportedModeError: the model is not a UNet.
        BaseModelError, CheckpointKeyError, CheckpointShapeError: the branch does not fit this model; nothing is
        patched.
        PatchConflictError: the model already carries this branch.
    Source: FPGA section 3.3, "adding the two outputs together as the output feature".
    """
    unet = unet_of(model)
    branch = fit_branch(branch, foldable_parameters(unet))
    attached = model.clone()
    remember_branch(attached, branch, alpha=alpha, beta=beta, form="live")
    layers = BranchLayers(unet, branch)
    live = LiveBranch(layers, alpha=alpha, beta=beta)
    key = f"fpga_live_{branch.header.branch_hash}"
    add_layers(attached, key, layers=layers, hooks=live.hooks)
    attached.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, live.within(steps))
    attached.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, live.warn_if_compiled)
    return attached
