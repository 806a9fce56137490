"""Nodes that crop small faces and paste them back, with any restorer in between."""

import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.faces.onnx_runtimes import Provider
from ..fpga_core.faces.parsing import load_face_parser
from ..fpga_core.restoration.face_crops import crop_faces, faces_in_crops, known_faces, stack_crops
from ..fpga_core.restoration.paste import paste_crops
from .files import modified_at
from .restoration_widgets import CATEGORY, crop_inputs, crop_settings, upright_is_known
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
                "Cuts the small faces out of each picture as square crops with soft masks. Restore the crops with any "
                "node that returns all of them, still square. Then put them back with Paste Faces."
            ),
            search_aliases=["face crop", "detailer", "codeformer", "gfpgan", "face restore", "face mask", "fpga"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures, one or a batch."),
                FaceAnalysisSocket.Input(
                    "face_analysis", optional=True, tooltip="Finds the faces. Not needed if faces are connected."
                ),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Faces that Detect Faces found in the same pictures."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Defines the area of a face, in place of the face's outline: one mask for all, one per "
                        "picture, or one per face. If neither faces nor face_analysis is connected, each mask counts "
                        "as a face."
                    ),
                ),
                FaceParserSocket.Input(
                    "face_parser", optional=True, tooltip="Finds the exact shape of each face. From Load Face Parser."
                ),
                *crop_inputs(
                    512, "Side of the square crops in pixels, a multiple of 8. Use 512 for SD1.5 and 1024 for SDXL."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="crops", tooltip="One square crop per face, or one black crop if there are no faces."
                ),
                io.Mask.Output(display_name="masks", tooltip="One soft mask per crop."),
                FaceCropsSocket.Output(
                    display_name="face_crops", tooltip="The place of each crop in its picture, for Paste Faces."
                ),
                FacesSocket.Output(
                    display_name="faces", tooltip="The face in each crop, in pixels of the crop, for Draw Landmarks."
                ),
            ],
        )

    @classmethod
    def execute(cls, image, face_analysis=None, faces=None, mask=None, face_parser=None, **widgets) -> io.NodeOutput:
        settings = crop_settings(widgets)
        found = known_faces(image, faces=faces, face_analysis=face_analysis, masks=mask)
        taken = crop_faces(image, found, settings, masks=mask, parser=face_parser)
        crops, masks = stack_crops(taken, settings.size_px)
        return io.NodeOutput(channels_first(crops), masks, taken, faces_in_crops(taken, settings.size_px))

    @classmethod
    def validate_inputs(cls, upright=None) -> bool | str:
        return upright is None or upright_is_known(upright)


def channels_first(crops: torch.Tensor) -> torch.Tensor:
    """Pictures of the same shape, stored channels first: GFPGAN fails on pictures that are stored channels last."""
    return crops.movedim(-1, 1).contiguous().movedim(1, -1)


class PasteFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_PasteFaces",
            display_name="Paste Faces",
            category=CATEGORY,
            description=(
                "Pastes restored crops back into their pictures. All faces of a picture go onto one canvas. Outside "
                "the returned mask, every pixel stays bit-identical."
            ),
            search_aliases=["face paste", "uncrop", "paste back", "composite", "detailer", "fpga"],
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the crops were cut from."),
                FaceCropsSocket.Input("face_crops", tooltip="The place of each crop in its picture, from Crop Faces."),
                io.Image.Input(
                    "crops",
                    tooltip="The restored crops, square and of any size. Connect all of them, in their original order.",
                ),
                io.Mask.Input(
                    "masks", tooltip="The masks of the crops, from Crop Faces. You can edit them; any size works."
                ),
                io.Boolean.Input(
                    "match_colors",
                    default=False,
                    tooltip=(
                        "Matches each crop to the colours of the original, measured outside the mask. Turn it on if "
                        "restored faces have a tint."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the restored faces."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip=(
                        "The area that changed in each picture. Where it is 0, the picture is bit-identical to the "
                        "input."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, image, face_crops, crops, masks, match_colors) -> io.NodeOutput:
        return io.NodeOutput(*paste_crops(image, face_crops, crops, masks=masks, are_colors_matched=match_colors))


class LoadFaceParser(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_LoadFaceParser",
            display_name="Load Face Parser",
            category=CATEGORY,
            description=(
                "Loads a BiSeNet face parsing network (ONNX, with the 19 classes of CelebAMask-HQ). It separates the "
                "face from hair, ears, hats and hands. Without a parser, faces are masked by the outline of their "
                "landmarks."
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
                    tooltip="The device that runs the network. auto uses the GPU if ONNX Runtime supports it.",
                ),
            ],
            outputs=[
                FaceParserSocket.Output(
                    display_name="face_parser", tooltip="The face parser, for Restore Faces and Crop Faces."
                ),
                io.String.Output(
                    display_name="info", tooltip="What was loaded, what it runs on, and how to fix a problem."
                ),
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
