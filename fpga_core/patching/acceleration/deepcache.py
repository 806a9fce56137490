"""DeepCache on a ComfyUI model: shallow steps reuse the deep features of full ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import torch
from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...acceleration.deepcache import DeepCacheRun, DeepCacheSettings
from ...errors import InvalidInputError, PatchConflictError, UnsupportedModeError
from ..schedule import StepRange
from ..unet import unet_of

KEY = "fpga_deepcache"
"""The wrappers' name on the model, and the name of a run in its options."""
DEEP = "fpga_deepcache_feature"
"""In the options of a shallow call, the feature that takes the deep layers' place."""
KEPT = "fpga_deepcache_kept"
"""In the options of a full call, the list that receives the feature."""

Control = Mapping[str, list[Tensor | None]] | None
"""The features of ControlNets, which the host takes from the end of each list, one for each block."""


def apply_deepcache(
    model: ModelPatcher,
    settings: DeepCacheSettings,
    steps: StepRange = StepRange(),  # noqa: B008 (frozen)
) -> ModelPatcher:
    """Returns a clone of a model most of whose steps reuse the deep features of an earlier step.

    Args:
        model: an SD1.5, SD2 or SDXL model.
        settings: which steps are shallow, and how shallow; with an interval of 1, the model is returned as it is.
        steps: the part of the schedule in which steps may be shallow.
    Raises:
        UnsupportedModeError: the model is not a UNet for pictures.
        InvalidInputError: the UNet does not have the branch.
        PatchConflictError: the model carries DeepCache already.
    Source: arXiv:2312.00858.
    """
    unet = unet_of(model)
    if any(isinstance(module, SpatialVideoTransformer) for module in unet.modules()):
        raise UnsupportedModeError("DeepCache works on UNets for pictures, and this one is for video; bypass the node")
    if settings.branch >= (num_branches := len(unet.output_blocks)):
        raise InvalidInputError(
            f"branch is {settings.branch}, but this UNet has {num_branches}; set it to {num_branches - 1} or less"
        )
    if carries_deepcache(model):
        raise PatchConflictError("the model carries DeepCache already; keep one Apply DeepCache and bypass the others")
    if settings.interval == 1:
        return model
    patch = DeepCachePatch(settings, steps)
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, patch.outer_sample)
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, patch.predict_noise)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, patch.apply_model)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, patch.diffusion_model)
    return patched


def carries_deepcache(model: ModelPatcher) -> bool:
    """Returns whether some steps of a model are shallow."""
    return KEY in model.wrappers.get(WrappersMP.OUTER_SAMPLE, {})


@dataclass(frozen=True)
class DeepCachePatch:
    """The functions that the host calls during sampling. What a run keeps is in the run's options, and ends with it.

    Attributes: the arguments of `apply_deepcache`.
    """

    settings: DeepCacheSettings
    steps: StepRange

    def outer_sample(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Begins a run. The options are the run's own: the host drops them when it ends, also by an error."""
        guider = cast(CFGGuider, executor.class_obj)
        guider.model_options["transformer_options"][KEY] = DeepCacheRun(self.settings)
        return executor(*args, **kwargs)

    def predict_noise(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
        *args: Any,  # noqa: ANN401
    ) -> Tensor:
        """Begins an evaluation, in which the host may call the model several times."""
        run: DeepCacheRun = model_options["transformer_options"][KEY]
        model_sampling = cast(CFGGuider, executor.class_obj).inner_model.model_sampling
        is_active = self.steps.is_whole_run or self.steps.contains(model_sampling, timestep)
        run.begin_evaluation(float(timestep[0]), is_active=is_active)
        return executor(x, timestep, model_options, *args)

    def apply_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Control = None,
        transformer_options: Mapping[str, Any] | None = None,
        **conds: Any,  # noqa: ANN401
    ) -> Tensor:
        """Gives a call the feature that was kept for it, or keeps the call's own.

        A compiled model is entered only after this, so that it sees a tensor or a list, and nothing of the run.
        """
        options = dict(transformer_options or {})
        run: DeepCacheRun | None = options.pop(KEY, None)
        inputs = (c_concat, c_crossattn, control)  # wrappers of other packs may read them by position
        if run is None or not run.is_keeping or not options.get("uuids"):
            return executor(x, t, *inputs, options, **conds)
        keys = run.keys(options["uuids"])
        feature = run.feature(keys, x)
        if feature is not None:
            return executor(x, t, *inputs, {**options, DEEP: feature}, **conds)
        kept: list[Tensor] = []
        output = executor(x, t, *inputs, {**options, KEPT: kept}, **conds)
        if kept:  # unless another pack has answered the call without the UNet
            run.keep(keys, x, kept[0])
        return output

    def diffusion_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None,
        y: Tensor | None,
        control: Control,
        transformer_options: dict[str, Any],
        **kwargs: Any,  # noqa: ANN401
    ) -> Tensor:
        """Runs the UNet, or its shallow part."""
        unet, inputs = cast(UNetModel, executor.class_obj), (x, timesteps, context, y, control)
        first = len(unet.output_blocks) - 1 - self.settings.branch
        if DEEP in transformer_options:
            options = transformer_options
            return run_shallow(unet, x, timesteps, context=context, y=y, control=control, options=options, first=first)
        if KEPT not in transformer_options:
            return executor(*inputs, transformer_options, **kwargs)
        kept: list[Tensor] = transformer_options[KEPT]

        def keep(h: Tensor, skip: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
            if options["block"] == ("output", first):
                kept.append(h.clone())  # patches that follow may write into it
            return h, skip

        patches = transformer_options.get("patches", {})
        patches = {**patches, "output_block_patch": [keep, *patches.get("output_block_patch", ())]}
        return executor(*inputs, {**transformer_options, "patches": patches}, **kwargs)


def run_shallow(
    unet: UNetModel,
    x: Tensor,
    timesteps: Tensor,
    *,
    context: Tensor | None,
    y: Tensor | None,
    control: Control,
    options: dict[str, Any],
    first: int,
) -> Tensor:
    """Runs the blocks of a UNet that are not deep, with the patches and controls that the host runs in them.

    Args:
        unet: the UNet.
        x: (batch, channels, height, width).
        timesteps: (batch,).
        context: text, (batch, tokens, width).
        y: label or size embedding, (batch, width), in UNets that have one.
        control: features of ControlNets; the lists are not changed.
        options: the host's options of the call, which hold the feature of the deep layers.
        first: number of the first output block that runs. The feature is its input.
    Returns:
        (batch, channels, height, width); with the feature of the same call, what the whole UNet returns.
    """
    options["original_shape"], options["transformer_index"] = list(x.shape), 0
    patches, blocks, outputs = options.get("patches", {}), list(unet.input_blocks), list(unet.output_blocks)
    control = {name: list(features) for name, features in (control or {}).items()}
    num_inputs = len(outputs) - first
    emb = unet.time_embed(timestep_embedding(timesteps, unet.model_channels).to(x.dtype))
    for patch in patches.get("emb_patch", ()):
        emb = patch(emb, unet.model_channels, options)
    if unet.num_classes is not None:
        emb = emb + unet.label_emb(y)
    h = x
    skips: list[Tensor] = []
    for number, block in enumerate(blocks[:num_inputs]):
        options["block"] = ("input", number)
        h = openaimodel.forward_timestep_embed(block, h, emb, context, options)
        h = openaimodel.apply_control(h, control, "input")
        for patch in patches.get("input_block_patch", ()):
            h = patch(h, options)
        skips.append(h)
        for patch in patches.get("input_block_patch_after_skip", ()):
            h = patch(h, options)
    deep = [*blocks[num_inputs:], unet.middle_block or (), *outputs[:first]]
    options["transformer_index"] += sum(isinstance(layer, SpatialTransformer) for block in deep for layer in block)
    if "output" in control:  # the last are for the first output blocks
        control["output"] = control["output"][: max(0, len(control["output"]) - first)]
    h = options[DEEP]
    for number, block in enumerate(outputs[first:], first):
        options["block"] = ("output", number)
        skip = openaimodel.apply_control(skips.pop(), control, "output")
        for patch in patches.get("output_block_patch", ()):
            h, skip = patch(h, skip, options)
        h = h if skip is None else torch.cat([h, skip], dim=1)
        output_shape = skips[-1].shape if skips else None
        h = openaimodel.forward_timestep_embed(block, h, emb, context, options, output_shape=output_shape)
    return unet.out(h.to(x.dtype))
