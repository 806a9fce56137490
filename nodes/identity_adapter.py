"""The node that loads an identity adapter."""

import os
from pathlib import Path

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.errors import CheckpointReadError
from ..fpga_core.identity.adapter_download import PUBLISHED_ADAPTERS, download_adapter
from ..fpga_core.identity.adapter_layouts import Variant, read_identity_adapter
from ..fpga_core.progress import say
from .files import load_weights, modified_at
from .sockets import IdentityAdapterSocket

FOLDER = "fpga_identity_adapters"
"""All folders that may hold adapters, as one: those of other packs and the pack's own."""

for _folder in ("ipadapter", "instantid", "fpga"):
    folder_paths.add_model_folder_path(_folder, os.path.join(folder_paths.models_dir, _folder))
    for _path in folder_paths.get_folder_paths(_folder):
        folder_paths.add_model_folder_path(FOLDER, _path)
folder_paths.folder_names_and_paths[FOLDER][1].update(folder_paths.supported_pt_extensions)


def adapter_names() -> list[str]:
    """The adapters that are there, and after them those that can be downloaded."""
    found = folder_paths.get_filename_list(FOLDER)
    return [*found, *(name for name in PUBLISHED_ADAPTERS if name not in found)]


def complete_adapter(name: str, *, download_if_missing: bool) -> None:
    """Downloads an adapter that is missing, or says how to get it."""
    if folder_paths.get_full_path(FOLDER, name) is not None:
        return
    if not download_if_missing:
        raise CheckpointReadError(
            f"'{name}' is not in models/ipadapter, models/instantid or models/fpga; "
            + ("turn on download_if_missing, or put it there" if name in PUBLISHED_ADAPTERS else "put it there")
        )
    say(f"downloading {name}")
    download_adapter(name, Path(folder_paths.get_folder_paths("ipadapter")[0]))


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
                    options=adapter_names(),
                    tooltip=(
                        "A file in models/ipadapter, models/instantid or models/fpga, or an adapter that can be "
                        "downloaded."
                    ),
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
                io.Boolean.Input(
                    "download_if_missing",
                    default=False,
                    optional=True,
                    tooltip=(
                        "Downloads the adapter into models/ipadapter if it is not there and is one of IP-Adapter's "
                        "public ones (about 45 MB to 1.5 GB). FaceID adapters are for research only; plus-face allows "
                        "commercial use."
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
    def execute(
        cls, name, variant=Variant.AUTO, use_lora=True, structure_strength=1.0, download_if_missing=False
    ) -> io.NodeOutput:
        complete_adapter(name, download_if_missing=download_if_missing)
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
    def fingerprint_inputs(
        cls, name, variant=Variant.AUTO, use_lora=True, structure_strength=1.0, download_if_missing=False
    ) -> float:
        return modified_at(FOLDER, name)


NODES: list[type[io.ComfyNode]] = [LoadIdentityAdapter]
