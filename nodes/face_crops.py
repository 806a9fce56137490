"""Nodes that take small faces out of pictures and put them back, for any restorer in between."""

import os
from pathlib import Path

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.faces.onnx_runtimes import Provider
from ..fpga_core.faces.parsing import load_face_parser
from ..fpga_core.restoration.face_crops import (
    crop_faces,
    faces_in_crops,
    known_faces,
    or_blank,
    paste_crops,
)
from .files import modified_at
from .restoration_widgets import CATEGORY, crop_inputs, crop_settings
from .sockets import FaceAnalysisSocket, FaceCropsSocket, FaceParserSocket, FacesSocket

PARSERS = "face_parsers"
folder_paths.add_model_folder_path(PARSERS, os.path.join(folder_paths.models_dir, PARSERS))
folder_paths.folder_names_and_paths[PARSERS][1].add(".onnx")


class CropFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_CropFaces",
            display_name="Crop Faces",
            category=CATEGORY,
            description=(
                "Takes the small faces of every picture out as square crops with soft masks. Restore them with any "
                "node that keeps them square and complete, then put them back with Paste Faces."
            ),
            search_aliases=["face crop", "detailer", "codeformer", "gfpgan", "face restore", "face mask", "fpga"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures, one or a batch of one size."),
                FaceAnalysisSocket.Input(
                    "face_analysis", optional=True, tooltip="Finds the faces, unless faces are connected."
                ),
                FacesSocket.Input("faces", optional=True, tooltip="Faces from Detect Faces on the same pictures."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Says what the face is, instead of its outline: one mask, one per picture, or one per face. "
                        "Without faces and face analysis, each mask is a face."
                    ),
                ),
                FaceParserSocket.Input(
                    "face_parser", optional=True, tooltip="Finds the exact shape of each face, from Load Face Parser."
                ),
                *crop_inputs(512, "Side of the crops in pixels, a multiple of 8: 512 for SD1.5, 1024 for SDXL."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="crops", tooltip="One square crop per face; one black crop if there is no face."
                ),
                io.Mask.Output(display_name="masks", tooltip="One soft mask per crop."),
                FaceCropsSocket.Output(display_name="face_crops", tooltip="Where the crops belong, for Paste Faces."),
                FacesSocket.Output(
                    display_name="faces", tooltip="The face of each crop in its pixels, for Draw Landmarks."
                ),
            ],
        )

    @classmethod
    def execute(cls, image, face_analysis=None, faces=None, mask=None, face_parser=None, **widgets) -> io.NodeOutput:
        found = known_faces(image, faces, face_analysis, mask)
        places, crops, masks = crop_faces(image, found, crop_settings(widgets), mask, face_parser)
        # Stored channels first, as restorers read them: GFPGAN fails on pictures that are stored channels last.
        stored = or_blank(crops).movedim(-1, 1).contiguous().movedim(1, -1)
        return io.NodeOutput(stored, or_blank(masks), places, faces_in_crops(places, crops))


class PasteFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_PasteFaces",
            display_name="Paste Faces",
            category=CATEGORY,
            description=(
                "Puts restored crops back into their pictures, all faces on one canvas. Outside the returned mask no "
                "pixel changes by a single bit."
            ),
            search_aliases=["face paste", "uncrop", "paste back", "composite", "detailer", "fpga"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures that were cropped."),
                FaceCropsSocket.Input("face_crops", tooltip="Where the crops belong, from Crop Faces."),
                io.Image.Input("crops", tooltip="The restored crops, all of them, square, of any size."),
                io.Mask.Input("masks", tooltip="Their masks, from Crop Faces or edited, of any size."),
                io.Boolean.Input(
                    "match_colors",
                    default=False,
                    tooltip="Gives each crop the colours of the original, as measured outside its mask.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the restored faces."),
                io.Mask.Output(display_name="mask", tooltip="What changed in each picture; 0 = not a single bit."),
            ],
        )

    @classmethod
    def execute(cls, image, face_crops, crops, masks, match_colors) -> io.NodeOutput:
        return io.NodeOutput(*paste_crops(image, face_crops, crops, masks, match_colors))


class LoadFaceParser(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_LoadFaceParser",
            display_name="Load Face Parser",
            category=CATEGORY,
            description=(
                "Loads a BiSeNet face parsing network (ONNX, 19 classes of CelebAMask-HQ), which tells face from hair, "
                "ears, hats and hands. Without one, faces are masked by the outline of their landmarks."
            ),
            search_aliases=["bisenet", "face parsing", "face mask", "face segmentation", "celebamask", "fpga"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list(PARSERS),
                    tooltip="A file in models/face_parsers, such as bisenet_resnet_34.onnx.",
                ),
                io.Combo.Input(
                    "provider",
                    options=Provider,
                    default=Provider.AUTO,
                    tooltip="What it runs on. auto takes the GPU where ONNX Runtime can.",
                ),
            ],
            outputs=[
                FaceParserSocket.Output(display_name="face_parser", tooltip="For Restore Faces and Crop Faces."),
                io.String.Output(display_name="info", tooltip="What was loaded, what it runs on, and what to mend."),
            ],
        )

    @classmethod
    def execute(cls, name, provider) -> io.NodeOutput:
        parser = load_face_parser(Path(folder_paths.get_full_path_or_raise(PARSERS, name)), Provider(provider))
        return io.NodeOutput(parser, parser.info, ui=ui.PreviewText(parser.info))

    @classmethod
    def fingerprint_inputs(cls, name, provider) -> float:
        return modified_at(PARSERS, name)


NODES: list[type[io.ComfyNode]] = [CropFaces, PasteFaces, LoadFaceParser]
