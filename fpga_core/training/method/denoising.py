"""The objective of both forms of FPGA (Eq. 3 and 4)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import ShapeMismatchError
from ...identity.adapters import IdentityAdapter
from ...identity.export import write_fpga_adapter
from ..data.batch import TrainingBatch
from .clone_face import RecordedFeature, clone_face_loss, splice
from .curriculum import Curriculum
from .fusion import condition_image
from .identity_network import IdentityNetwork, ReadIdentity
from .noising import NoiseSchedule, draw_normal
from .objective import TrainingModel
from .output_files import IDENTITY_FILE


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenBase:
    """The properties of the frozen model that the objective needs.

    Attributes:
        architecture: its name, as `recognise_base` gives it.
        latent_channels: channels of the latents that it reads.
        text_dim: width of the text that it reads.
        pooled_dim: width of the pooled text that it reads; 0 if it reads none.
        stride: latent pixels that become one in its lowest level.
        schedule: its noise schedule.
    """

    architecture: str
    latent_channels: int
    text_dim: int
    stride: int
    schedule: NoiseSchedule
    pooled_dim: int = 0


class DenoisingModel(TrainingModel):
    """A network that learns to predict the noise in pictures, given text, condition image and identity.

    Args:
        base: properties of the frozen model.
        curriculum: the stages of training and their losses.
        identity: the identity part; None if none is trained or read.
        save_dtype: dtype of the tensors in the exported files.
    """

    def __init__(
        self,
        base: FrozenBase,
        curriculum: Curriculum,
        identity: IdentityNetwork | None,
        *,
        save_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.base = base
        self.curriculum = curriculum
        self.identity = identity
        self.save_dtype = save_dtype

    @abstractmethod
    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        *,
        text: Tensor,
        hint: Tensor,
        identity: ReadIdentity | None,
        pooled: Tensor | None = None,
        record: RecordedFeature | None = None,
    ) -> Tensor:
        """Returns the network's prediction, with gradients to everything that is trained.

        Args:
            x: noised latents, (batch, channels, height, width).
            timesteps: (batch,).
            text: (batch, num_tokens, context_dim).
            hint: condition images, (batch, 3, 8 height, 8 width) in [0, 1].
            identity: the identity in each picture; None if there is none.
            pooled: (batch, pooled_dim), for a model that reads it.
            record: receives the features of the control branch's first cross attention.
        Returns:
            float32, the shape of x.
        """

    def forward(self, batch: TrainingBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModel`; parts: "l_cldm", and with Clone Face Tuning "l_cfa" and "cfa_feature_norm".

        The two halves of a spliced picture share the timestep and have independent noise. With equal noise, they would
        be equal whatever the network has learnt.

        Source: FPGA Eq. 3 and 4, with their norms as means.
        """
        return self._losses(batch, iteration, generator, is_cloned=self.curriculum.fusion.clones_at(iteration))

    def validation_loss(self, batch: TrainingBatch, iteration: int, generator: torch.Generator) -> Tensor:
        """See `TrainingModel`; Clone Face Tuning, which only some iterations have, is left out."""
        return self._losses(batch, iteration, generator, is_cloned=False)["loss"]

    def _losses(
        self, batch: TrainingBatch, iteration: int, generator: torch.Generator, *, is_cloned: bool
    ) -> dict[str, Tensor]:
        self._check(batch)
        fusion = self.curriculum.fusion
        if is_cloned:
            batch = splice(batch, self.base.stride)
        text_drops, identity_drops = self.curriculum.drops.draw(len(batch), generator)
        timesteps = self.base.schedule.draw_timesteps(len(batch), generator)
        noise = draw_normal(batch.latents, generator)
        x = self.base.schedule.noised(batch.latents, noise, timesteps)
        text = torch.where(text_drops.to(batch.device)[:, None, None], batch.null_text, batch.text)
        pooled, identity = None, None
        if self.base.pooled_dim and batch.pooled is not None and batch.null_pooled is not None:
            pooled = torch.where(text_drops.to(batch.device)[:, None], batch.null_pooled, batch.pooled)
        if self.identity is not None:
            tokens = self.identity.tokens(batch, identity_drops)
            identity = ReadIdentity(self.identity, tokens, batch.face_masks)
        record = RecordedFeature() if is_cloned else None
        left_out = fusion.left_out_at(iteration, len(batch), generator)
        hint = condition_image(batch, fusion.shown_at(iteration), left_out)
        predicted = self.predict(x, timesteps, text=text, hint=hint, identity=identity, pooled=pooled, record=record)
        target = self.base.schedule.target(batch.latents, noise, timesteps)
        gamma = self.curriculum.min_snr_gamma
        loss = denoising_loss(
            predicted,
            target,
            face_masks=batch.face_masks,
            face_weight=self.curriculum.face_weight,
            weights=self.base.schedule.min_snr_weights(timesteps, gamma) if gamma else None,
        )
        parts = {"l_cldm": loss.detach()}
        if record is not None and record.features is not None:
            tuning = self.curriculum.clone_face
            cfa = clone_face_loss(record.features, record.grid, masks=batch.face_masks, tuning=tuning)
            loss = loss + tuning.weight * cfa.loss
            parts |= {"l_cfa": cfa.loss.detach(), "cfa_feature_norm": cfa.feature_norm.detach()}
        return {"loss": loss, **parts}

    @abstractmethod
    def export_control(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes the current control branch; see `TrainingModel.export`. Returns no file if there is none."""

    def branch_hash(self) -> str | None:
        """Returns the hash of the RepControlNet branch that the identity is trained with; None if there is none."""
        return None

    def identity_adapter(self) -> IdentityAdapter | None:
        """Returns the current identity in the form that the nodes apply; None if none is trained."""
        if self.identity is None:
            return None
        return self.identity.as_adapter(
            "identity", base=self.base.architecture, branch_hash=self.branch_hash(), dtype=self.save_dtype
        )

    def export(self, folder: Path, trained_on: str) -> list[Path]:
        """Writes the control branch and `identity_adapter.safetensors`, each if it is trained; see `TrainingModel`."""
        files = self.export_control(folder, trained_on)
        adapter = self.identity_adapter()
        if adapter is not None:
            files.append(folder / IDENTITY_FILE)
            write_fpga_adapter(adapter, files[-1])
        return files

    def _check(self, batch: TrainingBatch) -> None:
        found = (batch.latents.shape[1], batch.text.shape[2])
        expected = (self.base.latent_channels, self.base.text_dim)
        if found != expected:
            raise ShapeMismatchError(
                f"the data have latents of {found[0]} channels and text {found[1]} wide, but the model reads "
                f"{expected[0]} and {expected[1]}; encode the data with this model's own VAE and text encoder"
            )
        pooled_dim = 0 if batch.pooled is None else batch.pooled.shape[1]
        if self.base.pooled_dim != pooled_dim:
            raise ShapeMismatchError(
                f"the data have pooled text {pooled_dim} wide, but the model reads {self.base.pooled_dim}; encode the "
                "data with this model's own text encoder"
            )


def denoising_loss(
    predicted: Tensor, target: Tensor, *, face_masks: Tensor, face_weight: float, weights: Tensor | None = None
) -> Tensor:
    """The mean squared error, in which the pixels of faces, and some timesteps, may count more.

    Args:
        predicted, target: (batch, channels, height, width).
        face_masks: coverage in [0, 1], (batch, 1, height, width).
        face_weight: what a face adds to a pixel's weight of 1. Weights are divided by their mean.
        weights: of the pictures, (batch,); None: 1.
    """
    if face_weight == 0 and weights is None:
        return functional.mse_loss(predicted, target)
    pixels = 1 + face_weight * face_masks
    pixels = pixels / pixels.mean()
    if weights is not None:
        pixels = pixels * weights.to(pixels)[:, None, None, None]
    return ((predicted - target).square() * pixels).mean()
