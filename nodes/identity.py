"""Identity nodes: encode photos of a person, and save and load the result."""

import os
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.checkpoints import read_safetensors_header
from ..fpga_core.faces.insightface_pack import complete_pack, load_insightface_pack
from ..fpga_core.faces.model_packs import KNOWN_PACKS
from ..fpga_core.faces.onnx_runtimes import Provider
from ..fpga_core.faces.pack_download import Progress
from ..fpga_core.identity.encoding import FaceChoice, encode_photos, encoder_problem
from ..fpga_core.identity.identity import Combine
from ..fpga_core.identity.identity_file import load_identity, save_identity
from ..fpga_core.patching.clip_vision import ClipVisionEncoder
from .reports import report
from .sockets import FaceAnalysisSocket, IdentitySocket

CATEGORY = "FPGA Portrait/identity"
MAX_PHOTOS = 32

PACKS = "insightface"
"""The folder of model packs, shared with other node packs: `<models>/insightface/models/<pack>/*.onnx`."""

IDENTITIES = "fpga_identities"
"""The folders of identities: one in the models, and the one that Save Identity writes to."""

folder_paths.add_model_folder_path(PACKS, os.path.join(folder_paths.models_dir, "insightface"))
folder_paths.add_model_folder_path(IDENTITIES, os.path.join(folder_paths.models_dir, "identities"))
folder_paths.add_model_folder_path(IDENTITIES, os.path.join(folder_paths.get_output_directory(), "identities"))
folder_paths.folder_names_and_paths[IDENTITIES][1].add(".safetensors")


def pack_folders() -> list[Path]:
    """The folders that hold packs. Downloads go to the first."""
    return [Path(root) / "models" for root in folder_paths.get_folder_paths(PACKS)]


def pack_names() -> list[str]:
    """The packs that are installed, and those that can be downloaded."""
    found = {entry.name for folder in pack_folders() if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()}
    return sorted(found | {pack.name for pack in KNOWN_PACKS})


def pack_folder(name: str) -> Path:
    """Where a pack is, or would be downloaded to."""
    folders = [folder / name for folder in pack_folders()]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def download_progress() -> Progress:
    """A callback that shows a download on ComfyUI's progress bar, and stops it on Cancel."""
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
                "Loads an insightface model pack, which finds and recognises faces. Check the licence: buffalo_l and "
                "antelopev2 are for research only. AuraFace's recogniser allows commercial use, but no public adapter "
                "accepts its embeddings."
            ),
            search_aliases=["insightface", "face detection", "buffalo_l", "antelopev2", "auraface", "arcface", "fpga"],
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=pack_names(),
                    default="buffalo_l",
                    tooltip=(
                        "A folder in models/insightface/models, or a pack that can be downloaded. FaceID adapters need "
                        "buffalo_l; InstantID needs antelopev2. Both are for research only, and so is buffalo_sc."
                    ),
                ),
                io.Combo.Input(
                    "provider",
                    options=Provider,
                    default=Provider.AUTO,
                    tooltip=(
                        "The device that runs the models. auto uses the GPU if ONNX Runtime supports it. The info "
                        "output shows which device is in use, and what to do if it is not the one you chose."
                    ),
                ),
                io.Boolean.Input(
                    "download_if_missing",
                    default=False,
                    tooltip=(
                        "Downloads the missing files of buffalo_l, antelopev2, auraface or buffalo_sc from the Hugging "
                        "Face Hub (16 to 421 MB), under the pack's own licence. An interrupted download resumes the "
                        "next time."
                    ),
                ),
            ],
            outputs=[
                FaceAnalysisSocket.Output(
                    display_name="face_analysis",
                    tooltip="The face analysis, for Encode Identity, Detect Faces and Score Cast.",
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="What was loaded, its licence, what it runs on, and how to fix a problem.",
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
                "Encodes photos of one person with a face recogniser, CLIP-Vision, or both. The identity works with "
                "every adapter that was trained with the same encoders."
            ),
            search_aliases=[
                "faceid",
                "pulid",
                "portrait",
                "character",
                "same person",
                "consistent character",
                "face embedding",
                "ipadapter encode",
                "reference photos",
                "person",
                "fpga",
            ],
            inputs=[
                FaceAnalysisSocket.Input(
                    "face_analysis",
                    optional=True,
                    tooltip=(
                        "Finds and recognises the face. FaceID, InstantID and FPGA adapters need it. Without it, the "
                        "photos must already be cropped to the face, and only plus-face can use the identity."
                    ),
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The CLIP-Vision model. FaceID-Plus and plus-face need CLIP-ViT-H-14-laion2B-s32B-b79K.",
                ),
                IdentitySocket.Input(
                    "extend",
                    optional=True,
                    tooltip=(
                        "An identity made from the same photos with another face analysis or CLIP-Vision model. The "
                        "result holds both and works with the adapters of both."
                    ),
                ),
                io.String.Input("name", default="", tooltip="The person's name, shown in labels and messages."),
                io.Combo.Input(
                    "face",
                    options=FaceChoice,
                    default=FaceChoice.LARGEST,
                    tooltip="Which face in each photo belongs to the person: the largest, or the one that index gives.",
                ),
                io.Int.Input(
                    "index",
                    default=1,
                    min=1,
                    max=100,
                    tooltip=(
                        "The number of the face, used if face is set to index. 1 is the largest face. Detect Faces "
                        "shows the numbers."
                    ),
                ),
                io.Combo.Input(
                    "combine",
                    options=Combine,
                    default=Combine.MEAN,
                    tooltip="How several photos become one identity. Choose median if some of the photos may be bad.",
                ),
                io.Boolean.Input(
                    "drop_outliers",
                    default=False,
                    tooltip=(
                        "Leaves out photos that seem to show someone else. The report names such photos in any case. "
                        "Needs at least three photos."
                    ),
                ),
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplateNames(
                        io.Image.Input(
                            "photo",
                            optional=True,  # each of them, so that any can be muted
                            tooltip="A photo, or a batch of photos. Another socket appears when this one is connected.",
                        ),
                        names=[f"photo_{number}" for number in range(1, MAX_PHOTOS + 1)],
                        min=1,
                    ),
                    tooltip="Photos of one person. They can differ in size.",
                    optional=True,  # and last, or pasting would lose wires
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="The person, for Make Cast or Save Identity."),
                io.Image.Output(
                    display_name="crops", tooltip="The aligned face from each photo, as CLIP-Vision sees it."
                ),
                io.String.Output(
                    display_name="report", tooltip="What was encoded, and how closely the photos resemble each other."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, name=None, images=None, face_analysis=False, clip_vision=False) -> bool | str:
        # ComfyUI passes None for a connected input, and leaves the default for an unconnected one.
        return encoder_problem(face_analysis is None, clip_vision is None) or True

    @classmethod
    def execute(
        cls, images, name, face, index, combine, drop_outliers, face_analysis=None, clip_vision=None, extend=None
    ) -> io.NodeOutput:
        encoder = None if clip_vision is None else ClipVisionEncoder(clip_vision)
        encoding = encode_photos(
            list(images.values()),
            face_analysis,
            encoder,
            choice=FaceChoice(face),
            number=index,
            combine=Combine(combine),
            drop_outliers=drop_outliers,
            name=name,
            extend=extend,
        )
        shown = report(encoding.report(), encoding.warnings)
        return io.NodeOutput(encoding.identity, encoding.crops, encoding.text, ui=shown)


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_SaveIdentity",
            display_name="Save Identity",
            category=CATEGORY,
            description="Saves an identity to a file, so that you do not need to encode the photos again.",
            search_aliases=["save faceid", "save embedding", "save face", "person", "fpga"],
            is_output_node=True,
            inputs=[
                IdentitySocket.Input("identity", tooltip="The identity, from Encode Identity."),
                io.String.Input(
                    "filename_prefix",
                    default="identities/person",
                    tooltip=(
                        "Folder and start of the file name, inside ComfyUI's output folder. Load Identity looks in "
                        "output/identities and models/identities."
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The path of the saved file.")],
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
            description="Loads an identity that Save Identity has written.",
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
                io.String.Output(
                    display_name="report", tooltip="Who the person is, and which encoders have seen the photos."
                ),
            ],
        )

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        identity = load_identity(folder_paths.get_full_path_or_raise(IDENTITIES, file))
        return io.NodeOutput(identity, identity.description, ui=ui.PreviewText(identity.description))

    @classmethod
    def fingerprint_inputs(cls, file) -> list[str]:
        path = folder_paths.get_full_path_or_raise(IDENTITIES, file)
        return [str(os.path.getsize(path)), *map(str, sorted(read_safetensors_header(path).items()))]  # with the hash


NODES: list[type[io.ComfyNode]] = [LoadFaceAnalysis, EncodeIdentity, SaveIdentity, LoadIdentity]
