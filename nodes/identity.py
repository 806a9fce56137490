"""Identity nodes: from photographs to a person, and the file that keeps them."""

import os
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.faces.insightface_pack import complete_pack, load_insightface_pack
from ..fpga_core.faces.model_packs import KNOWN_PACKS
from ..fpga_core.faces.onnx_runtimes import Provider
from ..fpga_core.faces.pack_download import Progress, file_sha256
from ..fpga_core.identity.encoding import FaceChoice, encode_photos, encoder_problem
from ..fpga_core.identity.identity import Combine
from ..fpga_core.identity.identity_file import load_identity, save_identity
from ..fpga_core.patching.clip_vision import ClipVisionEncoder
from .sockets import FaceAnalysisSocket, IdentitySocket

CATEGORY = "FPGA Portrait/identity"
MAX_PHOTOS = 32

PACKS = "insightface"
"""Folder of model packs, shared with other node packs: `<models>/insightface/models/<pack>/*.onnx`."""

IDENTITIES = "fpga_identities"
"""Where identities are looked for: in the models, and where Save Identity puts them."""

folder_paths.add_model_folder_path(PACKS, os.path.join(folder_paths.models_dir, "insightface"))
folder_paths.add_model_folder_path(IDENTITIES, os.path.join(folder_paths.models_dir, "identities"))
folder_paths.add_model_folder_path(IDENTITIES, os.path.join(folder_paths.get_output_directory(), "identities"))
folder_paths.folder_names_and_paths[IDENTITIES][1].add(".safetensors")


def pack_folders() -> list[Path]:
    """The folders that hold packs, the one that downloads go to first."""
    return [Path(root) / "models" for root in folder_paths.get_folder_paths(PACKS)]


def pack_names() -> list[str]:
    """Packs that are there, and packs that can be downloaded."""
    found = {entry.name for folder in pack_folders() if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()}
    return sorted(found | {pack.name for pack in KNOWN_PACKS})


def pack_folder(name: str) -> Path:
    """Where a pack is, or would be downloaded to."""
    folders = [folder / name for folder in pack_folders()]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def download_progress() -> Progress:
    """ComfyUI's progress bar, whose Cancel stops a download."""
    bar = comfy.utils.ProgressBar(1)

    def show(num_bytes: int, total: int) -> None:
        bar.update_absolute(num_bytes, total)
        comfy.model_management.throw_exception_if_processing_interrupted()

    return show


class LoadFaceAnalysis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_LoadFaceAnalysis",
            display_name="Load Face Analysis",
            category=CATEGORY,
            description=(
                "Loads an insightface model pack, which finds and recognises faces, and says what it runs on. Mind the "
                "licence: buffalo_l and antelopev2 are for research only; AuraFace's recogniser may be used "
                "commercially, but feeds none of the public adapters."
            ),
            search_aliases=["insightface", "face detection", "buffalo_l", "antelopev2", "auraface", "arcface", "fpga"],
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=pack_names(),
                    default="buffalo_l",
                    tooltip=(
                        "A folder in models/insightface/models, or a pack that can be downloaded. FaceID adapters need "
                        "buffalo_l, InstantID antelopev2. Both are for research only, as is buffalo_sc."
                    ),
                ),
                io.Combo.Input(
                    "provider",
                    options=Provider,
                    default=Provider.AUTO,
                    tooltip=(
                        "What it runs on. auto takes the GPU where ONNX Runtime can. The info output says what is "
                        "really used, and what to do if it is not what you chose."
                    ),
                ),
                io.Boolean.Input(
                    "download_if_missing",
                    default=False,
                    tooltip=(
                        "Downloads what is missing of buffalo_l, antelopev2, auraface or buffalo_sc from the Hugging "
                        "Face hub, 16 to 421 MB, under the pack's own licence. An interrupted download goes on next "
                        "time."
                    ),
                ),
            ],
            outputs=[
                FaceAnalysisSocket.Output(
                    display_name="face_analysis", tooltip="For Encode Identity, Detect Faces and Score Cast."
                ),
                io.String.Output(
                    display_name="info", tooltip="What was loaded, what it runs on, its licence, and what to mend."
                ),
            ],
        )

    @classmethod
    def execute(cls, pack, provider, download_if_missing) -> io.NodeOutput:
        folder = pack_folder(pack)
        if download_if_missing:
            complete_pack(folder, download_progress())
        analysis = load_insightface_pack(folder, Provider(provider))
        return io.NodeOutput(analysis, analysis.info, ui=ui.PreviewText(analysis.info))

    @classmethod
    def fingerprint_inputs(cls, pack, provider, download_if_missing) -> list[tuple[str, int, int]]:
        files = sorted(pack_folder(pack).rglob("*.onnx"))
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


class EncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_EncodeIdentity",
            display_name="Encode Identity",
            category=CATEGORY,
            description=(
                "Encodes the photos of one person: what a face recogniser and CLIP-Vision see in them. One identity "
                "serves every adapter that was trained with these encoders."
            ),
            search_aliases=["faceid", "face embedding", "ipadapter encode", "reference photos", "person", "fpga"],
            inputs=[
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplateNames(
                        io.Image.Input(
                            "photo",
                            tooltip="A photo, or a batch of photos. Another socket appears for the next one.",
                        ),
                        names=[f"photo_{number}" for number in range(1, MAX_PHOTOS + 1)],
                        min=1,
                    ),
                    tooltip="Photos of one person, each of its own size.",
                ),
                FaceAnalysisSocket.Input(
                    "face_analysis",
                    optional=True,
                    tooltip=(
                        "Finds and recognises the face. Needed by FaceID, InstantID and FPGA adapters. Without it the "
                        "photos must be crops of the face, and only plus-face can use the identity."
                    ),
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Needed by FaceID-Plus and plus-face: CLIP-ViT-H-14-laion2B-s32B-b79K.",
                ),
                IdentitySocket.Input(
                    "extend",
                    optional=True,
                    tooltip=(
                        "The same photos encoded with another pack or CLIP-Vision model: the result holds both, and "
                        "serves the adapters of both."
                    ),
                ),
                io.String.Input("name", default="", tooltip="The person's name, for labels and messages."),
                io.Combo.Input(
                    "face",
                    options=FaceChoice,
                    default=FaceChoice.LARGEST,
                    tooltip="Which face of each photo is the person's: the largest, or the one numbered below.",
                ),
                io.Int.Input(
                    "index",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="For face: index. 1 is the largest face; Detect Faces shows the numbers.",
                ),
                io.Combo.Input(
                    "combine",
                    options=Combine,
                    default=Combine.MEAN,
                    tooltip="How several photos become one. median is steadier where a photo may be bad.",
                ),
                io.Boolean.Input(
                    "drop_outliers",
                    default=False,
                    tooltip=(
                        "Leaves out photos that look like someone else than the others. They are named in the report "
                        "in any case. Needs at least three photos."
                    ),
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="The person, for Make Cast or Save Identity."),
                io.Image.Output(
                    display_name="crops", tooltip="The face of each photo, aligned, as CLIP-Vision sees it."
                ),
                io.String.Output(
                    display_name="report", tooltip="What was encoded, and how alike the photos are to each other."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, name=None, images=None, face_analysis=False, clip_vision=False) -> bool | str:
        # None is what ComfyUI passes for a connected input; one that is not connected keeps the default.
        return encoder_problem(face_analysis is None, clip_vision is None) or True

    @classmethod
    def execute(
        cls, images, name, face, index, combine, drop_outliers, face_analysis=None, clip_vision=None, extend=None
    ) -> io.NodeOutput:
        encoder = None if clip_vision is None else ClipVisionEncoder(clip_vision)
        encoding = encode_photos(
            list(images.values()), face_analysis, encoder, FaceChoice(face), index, Combine(combine), drop_outliers,
            name, extend,
        )  # fmt: skip
        report = encoding.report()
        return io.NodeOutput(encoding.identity, encoding.crops, report, ui=ui.PreviewText(report))


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_SaveIdentity",
            display_name="Save Identity",
            category=CATEGORY,
            description="Saves a person, so that the photos need not be encoded again.",
            search_aliases=["save faceid", "save embedding", "save face", "person", "fpga"],
            is_output_node=True,
            inputs=[
                IdentitySocket.Input("identity", tooltip="From Encode Identity."),
                io.String.Input(
                    "filename_prefix",
                    default="identities/person",
                    tooltip=(
                        "Folder and beginning of the file's name, inside ComfyUI's output folder. Load Identity looks "
                        "in output/identities and models/identities."
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the identity was saved.")],
        )

    @classmethod
    def execute(cls, identity, filename_prefix) -> io.NodeOutput:
        folder, name, counter, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        path = os.path.join(folder, f"{name}_{counter:05}_.safetensors")
        save_identity(path, identity)
        return io.NodeOutput(path, ui=ui.PreviewText(path))


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_LoadIdentity",
            display_name="Load Identity",
            category=CATEGORY,
            description="Loads a person that Save Identity has saved.",
            search_aliases=["load faceid", "load embedding", "load face", "person", "fpga"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folder_paths.get_filename_list(IDENTITIES),
                    tooltip="A file in output/identities or models/identities.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="The person, for Make Cast."),
                io.String.Output(display_name="report", tooltip="Who it is, and which encoders have seen the photos."),
            ],
        )

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        identity = load_identity(folder_paths.get_full_path_or_raise(IDENTITIES, file))
        return io.NodeOutput(identity, identity.description, ui=ui.PreviewText(identity.description))

    @classmethod
    def fingerprint_inputs(cls, file) -> str:
        return file_sha256(Path(folder_paths.get_full_path_or_raise(IDENTITIES, file)))


NODES: list[type[io.ComfyNode]] = [LoadFaceAnalysis, EncodeIdentity, SaveIdentity, LoadIdentity]
