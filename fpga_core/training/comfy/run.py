"""A complete training with ComfyUI's models, as the nodes and `fpga-portrait train` run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ...checkpoints import hash_state_dict
from ...errors import InvalidInputError
from ...faces.face import FaceAnalyzer
from ...identity.adapters import IdentityAdapter
from ...identity.encoding import ImageEncoder
from ...patching.unet import unet_of
from ...repcontrolnet.branch import INITIAL_RATIO, RepControlNet
from ...shapes import PIXELS_PER_LATENT
from ..data.batch import BatchSource
from ..data.encoded_set import EncodedSet
from ..data.encoded_shards import EncodedShards
from ..data.encodings import EncodingStore
from ..data.face_encoding import FaceEncoder
from ..data.reading import TrainingSet
from ..engine.loop import Hooks, Outcome, train
from ..method.folded_branch import TrainedPart
from ..method.identity_network import IdentityRecipe
from ..method.sampling import sample_grid
from ..plan import EncodingSettings, Task, TrainingPlan
from .controlnet import ControlNetTraining
from .encoding import ComfyEncoder
from .repcontrolnet import RepControlNetTraining

if TYPE_CHECKING:
    from accelerate import Accelerator

NUM_SAMPLES = 4
"""The number of pictures in a row of the samples that are drawn during training."""


@dataclass(frozen=True, kw_only=True)
class FrozenModels:
    """The models that a training reads; none of them is changed.

    Attributes:
        model: a checkpoint of the SD1.5 family, or of SDXL.
        clip: its text encoder.
        vae: its autoencoder.
        face_analysis: recognises the faces if the data holds no embeddings; for trainings with an identity.
        clip_vision: the CLIP-Vision model that the identity also reads; None for the embedding alone.
        branch: a RepControlNet to start from; None: the copies start at a tenth of the base (Eq. 5), or at zero in
            an identity training, which leaves most of them as they are.
        adapter: an identity adapter to start from; None: a new one.
    """

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    face_analysis: FaceAnalyzer | None = None
    clip_vision: ImageEncoder | None = None
    branch: RepControlNet | None = None
    adapter: IdentityAdapter | None = None


def run_training(
    plan: TrainingPlan,
    models: FrozenModels,
    *,
    data_folder: Path,
    folder: Path,
    accelerator: Accelerator,
    cache_folder: Path | None = None,
    hooks: Hooks | None = None,
    preparing: Callable[[int, int], None] | None = None,
    start: Path | None = None,
) -> Outcome:
    """Encodes a training set, trains on it, and exports the result.

    Args:
        plan: what is trained, and how.
        models: what the training reads.
        data_folder: the training set (docs/formats.md, "Training data").
        folder: receives everything that `loop.train` writes; an existing training is resumed.
        accelerator: from `processes.start_processes`.
        cache_folder: keeps encodings for the next training; None: memory.
        hooks: callbacks between iterations; the samples are drawn here.
        preparing: called with the number of samples that have been encoded, and of all; it may raise to end.
        start: a saved state of another training to start from, see `loop.train`.
    Returns:
        The outcome.
    Raises:
        TrainingDataError: the set or a sample cannot be used.
        InvalidInputError, UnsupportedModeError: models and plan do not fit together.
        ResumeMismatchError, TrainingCheckpointError, TrainingDivergedError: as in `loop.train`.
    """
    if accelerator.mixed_precision != plan.settings.precision.value:
        raise InvalidInputError(
            f"the processes were started with precision '{accelerator.mixed_precision}', but the plan has "
            f"'{plan.settings.precision.value}'; use the same precision for both"
        )
    with torch.inference_mode(False), torch.enable_grad():
        data = TrainingSet(data_folder, multiple_px=picture_multiple(models.model))
        faces = None
        if plan.trains_identity:
            faces = FaceEncoder(models.face_analysis, models.clip_vision, stored_recogniser=data.recogniser)
        encoder = ComfyEncoder(models.model, models.clip, models.vae, faces=faces)
        batches = _encoded(data, encoder, plan.encodings, cache_folder)
        batches.prepare(process=accelerator.process_index, num_processes=accelerator.num_processes, progress=preparing)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            batches.finish_preparing()
        source = data.header.get("source") or data_folder.name
        return train_on(
            plan,
            models,
            batches,
            faces=faces,
            decode=encoder.decode_latents,
            source=source,
            folder=folder,
            accelerator=accelerator,
            hooks=hooks,
            start=start,
        )


def train_on(
    plan: TrainingPlan,
    models: FrozenModels,
    batches: BatchSource,
    *,
    faces: FaceEncoder | None,
    decode: Callable[[Tensor], Tensor],
    source: str,
    folder: Path,
    accelerator: Accelerator,
    hooks: Hooks | None = None,
    start: Path | None = None,
) -> Outcome:
    """Trains on a set that is already encoded, and exports the result.

    Args:
        plan, models, folder, accelerator, hooks, start: as in `run_training`.
        batches: the encoded set.
        faces: what encoded the faces; None if no identity is trained.
        decode: makes pictures of latents, for the samples.
        source: names the set in the exported files.
    Returns, raises: as `run_training`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        model = _start(plan, models, faces=faces, batches=batches)
        if models.adapter is not None:
            if model.identity is None:
                raise InvalidInputError("no identity is trained, so there is nothing to start from an identity adapter")
            model.identity.take(models.adapter)
        comfy.model_management.unload_all_models()
        base_hash = hash_state_dict(model.unet.network.state_dict())
        shown = batches.batch(range(min(NUM_SAMPLES, len(batches)))).to(accelerator.device)

        def sample(iteration: int) -> Image.Image:
            return sample_grid(model, shown, iteration, seed=plan.settings.seed, decode=decode)

        return train(
            model,
            batches,
            plan.settings,
            folder=folder,
            accelerator=accelerator,
            model_settings=plan.decisive(base_hash, branch=models.branch, adapter=models.adapter),
            trained_on=f"{source}: {len(batches)} samples, {plan.settings.iterations} iterations",
            hooks=replace(hooks or Hooks(), sample=sample),
            start=start,
        )


def _encoded(
    data: TrainingSet, encoder: ComfyEncoder, settings: EncodingSettings, folder: Path | None
) -> EncodedSet | EncodedShards:
    if folder is None:
        return EncodedSet(data, encoder, EncodingStore(None), memory_mib=settings.memory_mib)
    source = EncodedSet(data, encoder, None)
    return EncodedShards(source, folder, memory_mib=settings.memory_mib, text_dtype=settings.text_dtype)


def picture_multiple(model: ModelPatcher) -> int:
    """What the sides of pictures must be multiples of, so that the UNet can halve their latents at each level.

    Args:
        model: any model with a UNet.
    """
    levels = len(unet_of(model).channel_mult)
    return PIXELS_PER_LATENT * 2 ** (levels - 1)


def _start(
    plan: TrainingPlan, models: FrozenModels, *, faces: FaceEncoder | None, batches: BatchSource
) -> RepControlNetTraining | ControlNetTraining:
    """What is trained, before its first iteration."""
    recipe = None
    if faces is not None:
        features = batches.batch([0]).clip_features
        recipe = IdentityRecipe(
            recogniser=faces.recogniser,
            clip_model="" if faces.clip_vision is None else faces.clip_vision.key,
            clip_dim=0 if features is None else features.shape[-1],
            inner_dim=plan.identity_dim,
        )
    if plan.task is Task.CONTROLNET:
        if models.branch is not None:
            raise InvalidInputError("a ControlNet starts from the model itself; disconnect the RepControlNet")
        return ControlNetTraining.of(
            models.model,
            plan.curriculum,
            recipe,
            dtype=plan.settings.precision.dtype,
            save_dtype=plan.save_dtype,
            is_checkpointed=plan.is_checkpointed,
            seed=plan.settings.seed,
        )
    is_identity = plan.task is Task.IDENTITY
    return RepControlNetTraining.of(
        models.model,
        plan.curriculum,
        recipe,
        part=TrainedPart.KEYS_VALUES if is_identity else TrainedPart.ALL,
        ratio=0.0 if is_identity else INITIAL_RATIO,  # copies that are not trained must not change the base
        initial=models.branch,
        dtype=plan.settings.precision.dtype,
        save_dtype=plan.save_dtype,
        is_checkpointed=plan.is_checkpointed,
        seed=plan.settings.seed,
    )
