"""A whole training beside ComfyUI's models: what the nodes and `fpga-portrait train` run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image

from ...checkpoints import hash_state_dict
from ...errors import InvalidInputError
from ...faces.face import FaceAnalyzer
from ...identity.encoding import ImageEncoder
from ...identity.resampler import PROJECTION_DIM
from ...patching.unet import unet_of
from ...repcontrolnet.branch import INITIAL_RATIO, RepControlNet
from ...shapes import PIXELS_PER_LATENT
from ..data.encoded_set import EncodedSet
from ..data.encodings import EncodingStore
from ..data.reading import TrainingSet
from ..engine.loop import Hooks, Outcome, train
from ..engine.settings import Precision, TrainingSettings
from ..method.curriculum import Curriculum
from ..method.denoising import DenoisingModel
from ..method.folded_branch import TrainedPart
from ..method.identity_network import IdentityRecipe
from ..method.sampling import sample_grid
from .controlnet import ControlNetTraining
from .encoding import ComfyEncoder, FaceEncoder
from .repcontrolnet import RepControlNetTraining

if TYPE_CHECKING:
    from accelerate import Accelerator

NUM_SAMPLES = 4
"""Pictures in a row of the samples that are drawn during training."""

DTYPES = {
    Precision.FLOAT32: torch.float32,
    Precision.BFLOAT16: torch.bfloat16,
    Precision.FLOAT16: torch.float16,
}


class Task(str, Enum):
    """What is trained."""

    REPCONTROLNET = "repcontrolnet"
    """Copies of all of a UNet's layers and the adapter, to be folded in."""

    IDENTITY = "identity"
    """Identity tokens, and the copies of the projections that they are read through."""

    CONTROLNET = "controlnet"
    """A ControlNet with the identity in its cross attention."""


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, and how.

    Attributes:
        task: what is trained.
        settings: of the engine.
        curriculum: the stages of training and their losses.
        has_identity: whether identity tokens are trained too; in an identity training they always are.
        identity_dim: width of the layer between a face's embedding and its tokens; a small model needs a small one.
        is_checkpointed: whether each block is computed a second time for the gradient, which needs much less memory.
        save_dtype: of the exported tensors.
    """

    task: Task
    settings: TrainingSettings
    curriculum: Curriculum = field(default_factory=Curriculum)
    has_identity: bool = False
    identity_dim: int = PROJECTION_DIM
    is_checkpointed: bool = False
    save_dtype: torch.dtype = torch.float32

    @property
    def trains_identity(self) -> bool:
        return self.has_identity or self.task is Task.IDENTITY

    def described(self, model: DenoisingModel, branch: RepControlNet | None) -> Mapping[str, Any]:
        """What the loss curve depends on beside the engine's settings: a training resumes only with the same."""
        fusion, clone_face = self.curriculum.fusion, self.curriculum.clone_face
        return {
            "task": self.task.value,
            "identity": self.trains_identity,
            "identity width": self.identity_dim,
            "landmarks iterations": fusion.num_landmarks,
            "skeleton iterations": fusion.num_skeleton,
            "clone_every": fusion.clone_every,
            "single_share": fusion.single_share,
            "clone weight": clone_face.weight,
            "text dropped": self.curriculum.drops.text,
            "identity dropped": self.curriculum.drops.identity,
            "branch": "new" if branch is None else branch.header.branch_hash[:16],
            "base model": hash_state_dict(model.base.unet.state_dict())[:16],
        }


@dataclass(frozen=True)
class FrozenModels:
    """The models that training looks through; none of them is changed.

    Attributes:
        model: a checkpoint of the SD1.5 family.
        clip: its text encoder.
        vae: its autoencoder.
        face_analysis: recognises the faces, where the data holds no embeddings; for trainings with an identity.
        clip_vision: what the identity reads beside the embedding; None: the embedding alone.
        branch: a RepControlNet to start from; None: the copies start at a tenth of the base (Eq. 5), in an identity
            training, which leaves most of them as they are, at zero.
    """

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    face_analysis: FaceAnalyzer | None = None
    clip_vision: ImageEncoder | None = None
    branch: RepControlNet | None = None


def run_training(
    plan: TrainingPlan,
    models: FrozenModels,
    data_folder: Path,
    folder: Path,
    accelerator: Accelerator,
    cache_folder: Path | None = None,
    hooks: Hooks | None = None,
    preparing: Callable[[int, int], None] | None = None,
    draw: Callable[[DenoisingModel, int], Image.Image] | None = None,
    start: Path | None = None,
) -> Outcome:
    """Encodes a training set, trains on it, and exports what was trained.

    Args:
        plan: what is trained, and how.
        models: what training looks through.
        data_folder: the training set (docs/formats.md, "Training data").
        folder: gets everything that `loop.train` writes; a training that is there is resumed.
        accelerator: from `processes.start_processes`.
        cache_folder: keeps encodings from one training to the next; None: memory.
        hooks: what the caller is told and asked between iterations; `draw` takes the place of its `sample`.
        preparing: told how many of how many samples have been encoded; may raise, to end.
        start: a saved state of another training to begin with, see `loop.train`.
        draw: makes the sample pictures of a network and an iteration; None: the set's first samples, generated anew.
    Returns:
        What became of it.
    Raises:
        TrainingDataError: the set or a sample cannot be used.
        InvalidInputError, UnsupportedModeError: models and plan do not go together.
        ResumeMismatchError, TrainingCheckpointError, TrainingDivergedError: as in `loop.train`.
    """
    if accelerator.mixed_precision != plan.settings.precision.value:
        raise InvalidInputError(
            f"the processes were started for '{accelerator.mixed_precision}', the plan is for "
            f"'{plan.settings.precision.value}'; start them for the same"
        )
    with torch.inference_mode(False), torch.enable_grad():
        data = TrainingSet(data_folder, picture_multiple(models.model))
        faces = None
        if plan.trains_identity:
            faces = FaceEncoder(models.face_analysis, models.clip_vision, data.recogniser)
        encoder = ComfyEncoder(models.model, models.clip, models.vae, faces)
        batches = EncodedSet(data, encoder, EncodingStore(cache_folder))
        batches.prepare(accelerator.process_index, accelerator.num_processes, preparing)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            batches.finish_preparing()
        model = _start(plan, models, faces, batches)
        comfy.model_management.unload_all_models()
        source = data.header.get("source") or data_folder.name
        trained_on = f"{source}: {len(data)} samples, {plan.settings.iterations} iterations"
        described = plan.described(model, models.branch)
        shown = batches.batch(range(min(NUM_SAMPLES, len(batches)))).to(accelerator.device)

        def sample(iteration: int) -> Image.Image:
            if draw is not None:
                return draw(model, iteration)
            return sample_grid(model, shown, iteration, plan.settings.seed, encoder.decode_latents)

        hooks = replace(hooks or Hooks(), sample=sample)
        return train(model, batches, plan.settings, folder, accelerator, described, trained_on, hooks, start)


def picture_multiple(model: ModelPatcher) -> int:
    """What the sides of pictures must be multiples of, so that the UNet can halve their latents as often as it does.

    Args:
        model: any model with a UNet.
    """
    levels = len(unet_of(model).channel_mult)
    return PIXELS_PER_LATENT * 2 ** (levels - 1)


def _start(plan: TrainingPlan, models: FrozenModels, faces: FaceEncoder | None, batches: EncodedSet) -> DenoisingModel:
    """What is trained, as it is before the first iteration."""
    recipe = None
    if faces is not None:
        features = batches.batch([0]).clip_features
        recipe = IdentityRecipe(
            faces.recogniser,
            "" if faces.clip_vision is None else faces.clip_vision.key,
            0 if features is None else features.shape[-1],
            inner_dim=plan.identity_dim,
        )
    common = {
        "dtype": DTYPES[plan.settings.precision],
        "save_dtype": plan.save_dtype,
        "is_checkpointed": plan.is_checkpointed,
        "seed": plan.settings.seed,
    }
    if plan.task is Task.CONTROLNET:
        if models.branch is not None:
            raise InvalidInputError("a ControlNet starts from the model itself; disconnect the RepControlNet")
        return ControlNetTraining.of(models.model, plan.curriculum, recipe, **common)
    part, ratio = TrainedPart.ALL, INITIAL_RATIO
    if plan.task is Task.IDENTITY:
        part, ratio = TrainedPart.KEYS_VALUES, 0.0  # copies that are not trained must not change the base
    return RepControlNetTraining.of(models.model, plan.curriculum, recipe, part, ratio, initial=models.branch, **common)
