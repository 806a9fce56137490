"""The objective that both forms of FPGA are trained with (Eq. 3 and 4)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import ShapeMismatchError
from ..comfy.attention import ReadIdentity, RecordedFeature
from ..comfy.unet import FrozenUNet
from ..data.batch import TrainingBatch
from .clone_face import clone_face_loss, splice
from .curriculum import Curriculum
from .fusion import condition_image
from .identity_network import IdentityNetwork
from .noising import draw_normal
from .objective import TrainingModel


class DenoisingModel(TrainingModel):
    """Learns to predict the noise in pictures, given text, condition image and identity.

    Args:
        base: the frozen model.
        curriculum: the stages of training and their losses.
        identity: the identity part; None: none is trained or read.
        save_dtype: of the tensors in the exported files.
    """

    def __init__(
        self,
        base: FrozenUNet,
        curriculum: Curriculum,
        identity: IdentityNetwork | None,
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
        text: Tensor,
        hint: Tensor,
        identity: ReadIdentity | None,
        record: RecordedFeature | None = None,
    ) -> Tensor:
        """The network's prediction, with gradients to everything that is trained.

        Args:
            x: noised latents, (batch, channels, height, width).
            timesteps: (batch,).
            text: (batch, num_tokens, context_dim).
            hint: condition images, (batch, 3, 8 height, 8 width) in [0, 1].
            identity: who is in the pictures.
            record: gets the features of the control branch's first cross attention.
        Returns:
            float32, the shape of x.
        """

    def forward(self, batch: TrainingBatch, iteration: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `TrainingModel`; parts: "l_cldm", and with Clone Face Tuning "l_cfa" and "cfa_feature_norm".

        The two halves of a spliced picture share the timestep and have noise of their own: with equal noise they would
        be alike whatever was learnt.

        Source: FPGA Eq. 3 and 4; the norms there as means.
        """
        self._check(batch)
        fusion = self.curriculum.fusion
        is_cloned = fusion.clones_at(iteration)
        if is_cloned:
            batch = splice(batch, self.base.stride)
        text_drops, identity_drops = self.curriculum.drops.draw(len(batch), generator)
        timesteps = self.base.schedule.draw_timesteps(len(batch), generator)
        noise = draw_normal(batch.latents, generator)
        x = self.base.schedule.noised(batch.latents, noise, timesteps)
        text = torch.where(text_drops.to(batch.device)[:, None, None], batch.null_text, batch.text)
        identity = None
        if self.identity is not None:
            tokens = self.identity.tokens(batch, identity_drops)
            identity = ReadIdentity(self.identity, tokens, batch.face_masks)
        record = RecordedFeature() if is_cloned else None
        left_out = fusion.left_out_at(iteration, len(batch), generator)
        hint = condition_image(batch, fusion.shown_at(iteration), left_out)
        predicted = self.predict(x, timesteps, text, hint, identity, record)
        target = self.base.schedule.target(batch.latents, noise, timesteps)
        loss = functional.mse_loss(predicted, target)
        parts = {"l_cldm": loss.detach()}
        if record is not None and record.features is not None:
            tuning = self.curriculum.clone_face
            cfa = clone_face_loss(record.features, record.grid, batch.face_masks, tuning)
            loss = loss + tuning.weight * cfa.loss
            parts |= {"l_cfa": cfa.loss.detach(), "cfa_feature_norm": cfa.feature_norm.detach()}
        return {"loss": loss, **parts}

    def _check(self, batch: TrainingBatch) -> None:
        found = (batch.latents.shape[1], batch.text.shape[2])
        expected = (self.base.config["in_channels"], self.base.config["context_dim"])
        if found != expected:
            raise ShapeMismatchError(
                f"the data have latents of {found[0]} channels and text {found[1]} wide, the model reads {expected[0]} "
                f"and {expected[1]}; prepare the data with this model's own VAE and text encoder"
            )
