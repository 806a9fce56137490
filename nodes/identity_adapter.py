"""The node that loads an identity adapter."""

import os

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.identity.adapter_layouts import Variant, read_identity_adapter
from .files import load_weights, modified_at
from .sockets import IdentityAdapterSocket

FOLDER = "fpga_identity_adapters"
"""Every folder where an adapter may be, as one: the other packs' and the pack's own."""

for _folder in ("ipadapter", "instantid", "fpga"):
    folder_paths.add_model_folder_path(_folder, os.path.join(folder_paths.models_dir, _folder))
    for _path in folder_paths.get_folder_paths(_folder):
        folder_paths.add_model_folder_path(FOLDER, _path)
folder_paths.folder_names_and_paths[FOLDER][1].update(folder_paths.supported_pt_extensions)


class LoadIdentityAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_LoadIdentityAdapter",
            display_name="Load Identity Adapter",
            category="FPGA Portrait/identity",
            description=(
                "Loads an identity adapter: the pack's own, IP-Adapter FaceID, FaceID-Plus, FaceID-Portrait or "
                "plus-face, or InstantID's. It is recognised by its tensors, whatever it is called, and says what it "
                "needs."
            ),
            search_aliases=["ipadapter", "faceid", "plus face", "instantid", "load ip-adapter", "likeness", "fpga"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A file in models/ipadapter, models/instantid or models/fpga. Its name does not matter.",
                ),
                io.Combo.Input(
                    "variant",
                    options=Variant,
                    default=Variant.AUTO,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Only for files whose tensors fit two adapters. auto takes FaceID-Plus as version 2, and an "
                        "embedding resampler as InstantID; choose plus_v1 or portrait_unnorm where the file is the "
                        "other."
                    ),
                ),
                io.Boolean.Input(
                    "use_lora",
                    default=True,
                    optional=True,
                    tooltip=(
                        "Whether the LoRA inside a FaceID file is applied too, as it was trained. The separate LoRA "
                        "file is the same one and not needed."
                    ),
                ),
                io.Float.Input(
                    "structure_strength",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "FaceID-PlusV2 only: how much of the face's structure, as CLIP-Vision sees it, joins the "
                        "identity. Higher is more alike and less free."
                    ),
                ),
            ],
            outputs=[
                IdentityAdapterSocket.Output(
                    display_name="adapter", tooltip="The adapter, for Apply Cast and Apply Cast ControlNet."
                )
            ],
        )

    @classmethod
    def execute(cls, name, variant=Variant.AUTO, use_lora=True, structure_strength=1.0) -> io.NodeOutput:
        weights, metadata = load_weights(FOLDER, name)
        adapter = read_identity_adapter(weights, metadata, name, Variant(variant), use_lora, structure_strength)
        return io.NodeOutput(adapter, ui=ui.PreviewText(adapter.description))

    @classmethod
    def fingerprint_inputs(cls, name, variant=Variant.AUTO, use_lora=True, structure_strength=1.0) -> float:
        return modified_at(FOLDER, name)


NODES: list[type[io.ComfyNode]] = [LoadIdentityAdapter]
