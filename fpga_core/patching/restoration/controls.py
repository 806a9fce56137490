"""The control that steers each face by its landmarks: a RepControlNet or an ordinary ControlNet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from comfy.controlnet import ControlNet
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...errors import InvalidInputError
from ...identity.adapters import IdentityAdapter
from ...repcontrolnet.branch import RepControlNet
from ..cast.controlnet import IdentityControlNet
from ..conditioning import Conditioning, add_control, as_hint
from ..repcontrolnet.apply import add_hint, apply_branch
from .autoencoder import PictureVAE
from .identities import ActingFaces


class FaceControl(Protocol):
    """Steers each face by the drawing of its landmarks."""

    activation_share: ClassVar[float]
    """What a call of it takes beside a call of the model, as a part of that."""

    def unloaded_bytes(self) -> int:
        """Returns the memory that its weights will yet take on the device, beside the model's."""
        ...

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """Returns the model with the control's patches; this is done once for all batches of faces.

        Raises:
            BaseModelError, CheckpointError: the control does not fit the model.
        """
        ...

    def condition(
        self,
        positive: Conditioning,
        negative: Conditioning,
        hints: Tensor,
        *,
        acting: ActingFaces | None = None,
    ) -> tuple[Conditioning, Conditioning]:
        """Adds the hints of a batch of faces.

        Args:
            hints: the drawings of their landmarks, (faces, height, width, 3).
            acting: identities that act inside the control; None if none do.
        """
        ...


@dataclass(frozen=True, eq=False)
class RepControlNetFaces:
    """Steers faces with a RepControlNet: its branch goes into the model, and its hint encoder reads the drawings."""

    branch: RepControlNet
    strength: float = 1.0
    activation_share: ClassVar[float] = 0.0

    def unloaded_bytes(self) -> int:
        return 0

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
class ControlNetFaces:
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

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        return model

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


def choose_control(
    branch: RepControlNet | None, control_net: ControlNet | None, *, vae: VAE, strength: float
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
    return None if control_net is None else ControlNetFaces(control_net, vae, strength)
