"""Parameters that are split over the processes that train together (FSDP), and what the others need of them.

Each process keeps its share of the parameters, of their running mean and of the optimizer. The whole parameters are
gathered for the forward and backward pass, and gradients are averaged into the shares.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from .nested import with_tensors

if TYPE_CHECKING:
    from accelerate import Accelerator


def shard(model: nn.Module, accelerator: Accelerator) -> None:
    """Splits a model's parameters over all processes, in place. Optimizers are made after it.

    Args:
        model: on the accelerator's device, with equal parameters in every process.
        accelerator: of several processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    accelerator.prepare_model(model, evaluation_mode=True)  # which adds its precision alone


@contextmanager
def unsynchronised(model: nn.Module) -> Generator[None, None, None]:
    """Within the block, gradients of a sharded model are added up in each process, and not averaged over them."""
    sharded = cast("Any", model)
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)


@contextmanager
def whole(model: nn.Module, *, is_sharded: bool) -> Generator[None, None, None]:
    """Within the block, the modules of a model have whole parameters. All processes enter it together.

    FSDP's own `unshard` would not do: the next `state_dict` of a module ends it, and frees what was read before.
    """
    modules = list(model.modules()) if is_sharded else []
    places = [(module, name, part) for module in modules for name, part in module.named_parameters(recurse=False)]
    try:
        for module, name, share in places:
            full = cast("Any", share).full_tensor().detach()
            setattr(module, name, nn.Parameter(full, requires_grad=share.requires_grad))
        yield
    finally:
        for module, name, share in places:
            setattr(module, name, share)


def gathered(value: Any, *, is_kept: bool) -> Any:  # noqa: ANN401
    """Returns nested tables and lists with whole tensors on the CPU, where they were split. All processes call it.

    Args:
        value: the same in every process, but for their shares.
        is_kept: whether this process needs the result; the others get empty tensors.
    """

    def gather(tensor: Tensor) -> Tensor:
        if not _is_split(tensor):
            return tensor
        full = cast("Any", tensor).full_tensor()
        return full.cpu() if is_kept else full.new_empty(0)

    return with_tensors(value, gather)


def split_as(full: Tensor, like: Tensor) -> Tensor:
    """Returns this process's share of a whole tensor, if `like` is one; else the tensor."""
    if not _is_split(like):
        return full
    from torch.distributed.tensor import distribute_tensor

    split = cast("Any", like)
    return distribute_tensor(full.to(like.device), split.device_mesh, split.placements, src_data_rank=None)


def split_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns an optimizer's whole state dict as this process's share of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def split(value: Any, parameter: Tensor) -> Any:  # noqa: ANN401
        is_like_it = isinstance(value, Tensor) and value.shape == parameter.shape
        return split_as(value, parameter) if is_like_it else value

    states = {
        number: {name: split(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": states}


def as_number(value: Tensor) -> float:
    """Returns a scalar that may be split over the processes. All of them call it."""
    return float(cast("Any", value).full_tensor() if _is_split(value) else value)


def _is_split(value: Any) -> bool:  # noqa: ANN401
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)
