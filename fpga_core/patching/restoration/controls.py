"""The control that steers each face by its landmarks: a RepControlNet, an ordinary ControlNet, or a model patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from comfy.controlnet import ControlNet
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_extras.nodes_model_patch import DiffSynthCnetPatch, ZImageControlPatch
from torch import Tensor

from ...errors import InvalidInputError, UnsupportedModeError
from ...identity.adapters import IdentityAdapter
from ...repcontrolnet.branch import RepControlNet
from ..cast.controlnet import IdentityControlNet
from ..conditioning import Conditioning, add_control, as_hint
from ..repcontrolnet.apply import add_hint, apply_branch
from .autoencoder import PictureVAE
from .identities import ActingFaces


class FaceControl:
    """Steers each face by the drawing of its landmarks: through the model, or through the prompts."""

    activation_share: ClassVar[float] = 0.0
    """What a call of it takes beside a call of the model, as a part of that."""

    def unloaded_bytes(self) -> int:
        """Returns the memory that its weights will yet take on the device, beside the model's."""
        return 0

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """Returns the model with the control's patches; this is done once for all batches of faces.

        Raises:
            BaseModelError, CheckpointError, UnsupportedModeError: the control does not fit the model.
        """
        return model

    def follow(self, model: ModelPatcher, hints: Tensor) -> ModelPatcher:
        """Returns an attached model for a batch of faces, if hints go into the model and not into the prompts."""
        return model

    def condition(
        self,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        *,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """Adds the hints of a batch of faces to the prompts.

        Args:
            hints: the drawings of their landmarks, (faces, height, width, 3).
            acting: identities that act inside the control; None if none do.
        """
        return positive, negative


@dataclass(frozen=True, eq=False)
class RepControlNetFaces(FaceControl):
    """Steers faces with a RepControlNet: its branch goes into the model, and its hint encoder reads the drawings."""

    branch: RepControlNet
    strength: float = 1.0

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        patched, _ = apply_branch(model, self.branch)
        return patched

    def condition(
        self,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        *,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """Adds the hints. A hint encoder has no cross attention in which identities could act."""
        return add_hint(positive, negative, branch=self.branch, image=hints, strength=self.strength)


@dataclass(frozen=True, eq=False)
class ControlNetFaces(FaceControl):
    """Steers faces with an ordinary ControlNet.

    Attributes:
        control_net: the ControlNet as the host loaded it; it is not changed.
        vae: encodes hints for ControlNets that read latents.
        strength: 1 is as trained, and 0 is off.
        with_identities: the ControlNet with an adapter whose identities can act inside it.
    """

    control_net: ControlNet
    vae: VAE
    strength: float = 1.0
    with_identities: IdentityControlNet | None = None
    activation_share: ClassVar[float] = 0.5
    """A ControlNet is the first half of its UNet, and what it gives is kept until the second half has run."""

    def unloaded_bytes(self) -> int:
        return sum(model.model_size() - model.loaded_size() for model in self.control_net.get_models())

    def for_identities(self, adapter: IdentityAdapter) -> ControlNetFaces:
        """Returns this control, ready for identities that act inside it.

        Raises:
            UnsupportedModeError: the ControlNet has no cross attention in which they could act.
            BaseModelError: the adapter does not fit the ControlNet.
        """
        return replace(self, with_identities=IdentityControlNet.of(self.control_net, adapter))

    def condition(
        self,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        *,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        if self.strength == 0:
            return positive, negative
        if acting is None or self.with_identities is None:
            control = self.control_net.copy()
        else:
            control, positive, negative = self.with_identities.with_cast(acting, positive, negative)
        control.set_cond_hint(as_hint(hints), self.strength, (0.0, 1.0), vae=PictureVAE(self.vae))
        return add_control(positive, negative, control)


HostPatch = Any
"""One of the host's patches of transformer blocks, which holds the latent of the picture that it follows."""

MODEL_PATCHES: dict[str, tuple[str, Callable[..., HostPatch], tuple[str, ...]]] = {
    "ZImage_Control": ("NextDiT", ZImageControlPatch, ("noise_refiner", "double_block")),
    "QwenImageBlockWiseControlNet": ("QwenImageTransformer2DModel", DiffSynthCnetPatch, ("double_block",)),
}
"""For each class of a control among the host's model patches: the class of its base, its patch, and where that runs.
Names, because the host imports the modules of its nodes in a way of its own."""


@dataclass(frozen=True, eq=False)
class ModelPatchFaces(FaceControl):
    """Steers faces with a model patch, which some transformers have in place of a ControlNet.

    Attributes:
        model_patch: the patch as Load Model Patch loaded it; it is not changed.
        vae: encodes hints.
        strength: 1 is as trained, and 0 is off.
    """

    model_patch: ModelPatcher
    vae: VAE
    strength: float = 1.0
    activation_share: ClassVar[float] = 0.5
    """As of a ControlNet; the published ones have a fifth of the layers of their base, or less."""

    def unloaded_bytes(self) -> int:
        return self.model_patch.model_size() - self.model_patch.loaded_size()

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """Returns the model as it is.

        Raises:
            UnsupportedModeError: the patch is not a control, or one for another model.
        """
        kind, base = (type(part).__name__ for part in (self.model_patch.model, model.model.diffusion_model))
        if kind not in MODEL_PATCHES or MODEL_PATCHES[kind][0] != base:
            raise UnsupportedModeError(
                f"connect a control for this model to control_net: the model patch is {kind}, and the model {base}. "
                "Z-Image has its Fun ControlNet, and Qwen-Image DiffSynth's"
            )
        return model

    def follow(self, model: ModelPatcher, hints: Tensor) -> ModelPatcher:
        if self.strength == 0:
            return model
        _, make_patch, places = MODEL_PATCHES[type(self.model_patch.model).__name__]
        patch = make_patch(self.model_patch, PictureVAE(self.vae), hints[..., :3], self.strength)
        followed, of_each = model.clone(), PatchOfEachFace(patch, patch.encoded_image)
        for place in places:
            followed.set_model_patch(of_each, place)
        return followed


@dataclass(frozen=True, eq=False)
class PatchOfEachFace:
    """A patch of the host for a batch of faces. The host knows one picture for all rows, whether cond or uncond.

    Attributes:
        patch: the host's patch.
        encoded: what it holds of each face's picture, (faces, ...).
    """

    patch: HostPatch
    encoded: Tensor

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        chunks = len(inputs["img"]) // len(self.encoded)
        self.patch.encoded_image = self.encoded.repeat(chunks, *(1 for _ in self.encoded.shape[1:]))
        return self.patch(inputs)

    def to(self, device_or_dtype: torch.device | torch.dtype) -> PatchOfEachFace:
        if isinstance(device_or_dtype, torch.dtype):
            return self
        return PatchOfEachFace(self.patch.to(device_or_dtype), self.encoded.to(device_or_dtype))

    def models(self) -> list[ModelPatcher]:
        return self.patch.models()


def choose_control(
    branch: RepControlNet | None, control_net: ControlNet | ModelPatcher | None, *, vae: VAE, strength: float
) -> FaceControl | None:
    """Returns the connected control, if there is one.

    Raises:
        InvalidInputError: both are connected.
    """
    if branch is not None and control_net is not None:
        raise InvalidInputError(
            "repcontrolnet and control_net are both connected, but landmarks go through only one of them; disconnect "
            "the other"
        )
    if branch is not None:
        return RepControlNetFaces(branch, strength)
    if isinstance(control_net, ModelPatcher):
        return ModelPatchFaces(control_net, vae, strength)
    return None if control_net is None else ControlNetFaces(control_net, vae, strength)
