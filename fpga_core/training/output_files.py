"""The files that training ends with."""

from __future__ import annotations

from ..errors import UnsupportedModeError
from .identity_network import IdentityNetwork, Projections

REPCONTROLNET_FILE = "repcontrolnet.safetensors"
CONTROLNET_FILE = "controlnet.safetensors"
IDENTITY_FILE = "identity_adapter.safetensors"


def check_projections_shared(identity: IdentityNetwork | None) -> None:
    """Raises unless an identity, where there is one, fits into the pack's own file.

    Raises:
        UnsupportedModeError: it has projections of its own.
    """
    if identity is not None and identity.recipe.projections is Projections.OWN:
        raise UnsupportedModeError(
            "an FPGA identity adapter shares the model's projections, and this one has its own; train with shared "
            "projections to get a file"
        )
