"""Layers that run beside those of a model and add to what they give, while the host has the model injected.

Forward hooks add it, so the model's modules keep their `forward`, and removing the hooks restores them exactly.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Add = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]
"""A forward hook: the layer, its inputs, and its output -> what takes the output's place."""

Handles = weakref.WeakKeyDictionary[nn.Module, list[RemovableHandle]]


def add_layers(model: ModelPatcher, key: str, *, layers: nn.Module, hooks: Mapping[str, Add]) -> None:
    """Adds layers to a model, in place.

    Args:
        model: a clone.
        key: a name for them.
        layers: what the hooks compute with; for the host a model of its own, loaded and unloaded with the base.
        hooks: path of a layer in the model's network -> what is added to it.
    """
    model.set_additional_models(key, [CoreModelPatcher(layers, model.load_device, model.offload_device)])
    added = _AddedLayers(hooks)
    model.set_injections(key, [PatcherInjection(inject=added.inject, eject=added.eject)])


@dataclass(frozen=True, eq=False)
class _AddedLayers:
    """The hooks, and the handles of those that are set, by the model that has them."""

    hooks: Mapping[str, Add]
    handles: Handles = field(default_factory=Handles)

    def inject(self, patcher: ModelPatcher) -> None:
        self.eject(patcher)  # a clone of an injected model counts as injected too
        net = patcher.model.diffusion_model
        self.handles[patcher.model] = [
            net.get_submodule(path).register_forward_hook(add) for path, add in self.hooks.items()
        ]

    def eject(self, patcher: ModelPatcher) -> None:
        for handle in self.handles.pop(patcher.model, ()):
            handle.remove()
