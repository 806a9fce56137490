"""ComfyUI nodes: sockets, tooltips and layout conversion; the work is done in `fpga_core`."""

from comfy_api.v0_0_2 import ComfyExtension, io

from . import (
    acceleration,
    apply_cast,
    cast,
    describing,
    face_crops,
    faces,
    identity,
    identity_adapter,
    repcontrolnet,
    restoration,
    scores,
    training,
)
from .defaults import with_defaults
from .given import checking_inputs
from .messages import show_in_editor

NODES: list[type[io.ComfyNode]] = [
    *identity.NODES,
    *describing.NODES,
    *identity_adapter.NODES,
    *cast.NODES,
    *scores.NODES,
    *apply_cast.NODES,
    *repcontrolnet.NODES,
    *faces.NODES,
    *restoration.NODES,
    *face_crops.NODES,
    *training.NODES,
    *acceleration.NODES,
]
for node in NODES:
    with_defaults(checking_inputs(node))


class FPGAPortraitExtension(ComfyExtension):
    async def on_load(self) -> None:
        show_in_editor()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
