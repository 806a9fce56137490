"""Saves a model with a RepControlNet in its weights, as a plain file that any tool can load."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import comfy.sd
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import V_PREDICTION, ModelSamplingContinuousEDM, ModelSamplingDiscrete
from comfy.quant_ops import QuantizedTensor

from ...boundaries import written_whole
from ...checkpoints import read_safetensors
from ...errors import CheckpointError, InvalidInputError, PatchConflictError, UnsupportedModeError
from ...repcontrolnet.branch import RepControlNet
from ...repcontrolnet.export import write_hint_encoder
from ..acceleration.quantization import WeightFormat, quantize_weights
from .carried import branches_entry, carried_branches


class SavedModel(NamedTuple):
    """The two files that `save_folded_model` wrote."""

    model_path: str
    hint_encoder_path: str


def save_folded_model(
    model: ModelPatcher,
    branch: RepControlNet,
    stem: str,
    *,
    clip: comfy.sd.CLIP | None = None,
    vae: comfy.sd.VAE | None = None,
    form: WeightFormat = WeightFormat.AS_LOADED,
) -> SavedModel:
    """Writes `<stem>.safetensors`, every patch of `model` in its weights, and `<stem>adapter.safetensors`.

    Args:
        model: a model that carries the fold of `branch`; other patches on it, such as LoRAs, are saved too.
        stem: path of the files without an ending; the folder exists.
        clip, vae: both for a checkpoint, or neither for a diffusion model.
        form: how the model's weights are stored. The fold is computed in full precision and rounded once.
    Raises:
        InvalidInputError: only one of clip and vae is given.
        PatchConflictError: the model does not carry the fold, or runs a branch live, which a file cannot express.
        UnsupportedModeError: the model comes from a GGUF file, or is quantized already and would be rounded again.
        CheckpointError: the files cannot be written; there is no half file.
    """
    if (clip is None) != (vae is None):
        raise InvalidInputError("connect both clip and vae to save a checkpoint, or neither to save a diffusion model")
    records = carried_branches(model)
    if live := [record.name for record in records if record.form == "live"]:
        raise PatchConflictError(
            f"the RepControlNet '{live[0]}' runs live beside this model, which a file cannot hold; in Apply "
            "RepControlNet, set mode to 'folded', start_percent to 0 and end_percent to 1"
        )
    if not any(record.branch_hash == branch.header.branch_hash for record in records):
        raise PatchConflictError(
            f"the connected model does not carry the fold of '{branch.name}'; connect the model output of an Apply "
            "RepControlNet that uses this RepControlNet, in mode 'folded'"
        )
    check_plain_weights(model)
    if form is not WeightFormat.AS_LOADED:
        check_full_precision(model)
    sampling = model.get_model_object("model_sampling")
    saved = SavedModel(f"{stem}.safetensors", f"{stem}adapter.safetensors")
    with written_whole(Path(saved.model_path), CheckpointError) as partial:
        comfy.sd.save_checkpoint(
            str(partial),
            model,
            clip=clip,
            vae=vae,
            metadata={
                "modelspec.predict_key": "v" if isinstance(sampling, V_PREDICTION) else "epsilon",
                **branches_entry(records),
            },
            extra_keys=prediction_keys(sampling),
        )
        if form is not WeightFormat.AS_LOADED:
            tensors, metadata = read_safetensors(partial)
            safetensors.torch.save_file(quantize_weights(tensors, form), partial, metadata)
    write_hint_encoder(branch, saved.hint_encoder_path)
    return saved


def check_plain_weights(model: ModelPatcher) -> None:
    """Raises unless the weights are plain numbers that a safetensors file can hold.

    Raises:
        UnsupportedModeError: they are packed, as those of a GGUF file.
    """
    for name, parameter in model.model.named_parameters():
        packing = getattr(parameter, "tensor_type", None)  # of ComfyUI-GGUF's tensors
        if packing is not None and getattr(packing, "name", "") not in ("F16", "F32"):
            raise UnsupportedModeError(
                "load the model from a safetensors file instead: this one comes from a GGUF file (its "
                f"'{name}' is packed as {getattr(packing, 'name', packing)}), and packed weights cannot be saved with "
                "the fold in them"
            )


def check_full_precision(model: ModelPatcher) -> None:
    """Raises unless a model's weights have at least 16 bits, so that quantizing them rounds once.

    Raises:
        UnsupportedModeError: they are quantized already.
    """
    for name, parameter in model.model.named_parameters():
        if isinstance(parameter, QuantizedTensor) or parameter.dtype.itemsize < 2:
            raise UnsupportedModeError(
                f"the connected model is quantized already (its '{name}' is {parameter.dtype}), and would be rounded "
                "twice; load a float16, bfloat16 or float32 checkpoint, or set weights to as_loaded"
            )


def prediction_keys(sampling: ModelSamplingDiscrete) -> dict[str, torch.Tensor]:
    """Returns the tensors that tell the host's loader what a checkpoint predicts, as its Save Checkpoint names them.

    Args:
        sampling: the model's `model_sampling`, from the checkpoint itself or from a node after it.
    """
    if not isinstance(sampling, V_PREDICTION):
        return {}
    if isinstance(sampling, ModelSamplingContinuousEDM):
        limits = {
            "sigma_max": cast(torch.Tensor, sampling.sigma_max),
            "sigma_min": cast(torch.Tensor, sampling.sigma_min),
        }
        return {f"edm_vpred.{name}": torch.tensor(float(limit)) for name, limit in limits.items()}
    present = torch.tensor([])
    return {"v_pred": present, "ztsnr": present} if getattr(sampling, "zsnr", False) else {"v_pred": present}
