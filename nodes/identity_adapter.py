"""The node that loads an identity adapter."""

import os

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.identity.adapter_layouts import Variant, read_identity_adapter
from .files import load_weights, modified_at
from .sockets import IdentityAdapterSocket

FOLDER = "fpga_identity_adapters"
"""All folders that may hold adapters, as one: those of other packs and the pack's own."""

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
                "Loads an identity adapter: FPGA's own, IP-Adapter FaceID, FaceID-Plus, FaceID-Portrait or plus-face, "
                "or InstantID's. The file is recognised by its tensors; if these fit two adapters, its name decides. "
                "The node shows what was chosen and what the adapter needs."
            ),
            search_aliases=[
                "ipadapter",
                "faceid",
                "plus face",
                "instantid",
                "pulid",
                "load ip-adapter",
                "likeness",
                "fpga",
            ],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A file in models/ipadapter, models/instantid or models/fpga.",
                ),
                io.Combo.Input(
                    "variant",
                    options=Variant,
                    default=Variant.AUTO,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Only for files whose tensors fit two adapters: FaceID-Plus version 1 or 2, and InstantID or "
                        "FaceID-Portrait (unnormalised). auto follows the file's name, or else chooses version 2 and "
                        "InstantID; the node shows which."
                    ),
                ),
                io.Boolean.Input(
                    "use_lora",
                    default=True,
                    optional=True,
                    tooltip=(
                        "Applies the LoRA inside a FaceID file together with the adapter, as it was trained. The "
                        "separate LoRA file holds the same LoRA, so you do not need it."
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
                        "For FaceID-PlusV2 only: how strongly the structure of the face, as CLIP-Vision sees it, "
                        "contributes to the identity. Raise it for more likeness; lower it for more freedom."
                    ),
                ),
            ],
            outputs=[
                IdentityAdapterSocket.Output(
                    display_name="adapter",
                    tooltip="The adapter, for Apply Cast, Apply Cast ControlNet and Restore Faces.",
                )
            ],
        )

    @classmethod
    def execute(cls, name, variant=Variant.AUTO, use_lora=True, structure_strength=1.0) -> io.NodeOutput:
        weights, metadata = load_weights(FOLDER, name)
        adapter = read_identity_adapter(
            weights,
            metadata,
            name,
            variant=Variant(variant),
            use_lora=use_lora,
            structure_strength=structure_strength,
        )
        return io.NodeOutput(adapter, ui=ui.PreviewText(adapter.description))

    @classmethod
    def fingerprint_inputs(cls, name, variant=Variant.AUTO, use_lora=True, structure_strength=1.0) -> float:
        return modified_at(FOLDER, name)


NODES: list[type[io.ComfyNode]] = [LoadIdentityAdapter]
