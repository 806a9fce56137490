"""RepControlNet nodes: load a file, apply it, save a model with the fold in its weights."""

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.patching.repcontrolnet.apply import BranchMode, apply_repcontrolnet
from ..fpga_core.patching.repcontrolnet.saving import save_folded_model
from ..fpga_core.patching.schedule import StepRange
from ..fpga_core.repcontrolnet.layouts import read_repcontrolnet
from .files import load_weights, modified_at
from .sockets import RepControlNetSocket
from .step_range import step_range

CATEGORY = "FPGA Portrait/RepControlNet"


class LoadRepControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_LoadRepControlNet",
            display_name="Load RepControlNet",
            category=CATEGORY,
            description=(
                "Loads a RepControlNet: pose control that folds into the model's weights and then costs nothing per "
                "step."
            ),
            search_aliases=["rep controlnet", "reparameterized controlnet", "fpga", "pose control", "load controlnet"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list("controlnet"),
                    tooltip=(
                        "A RepControlNet file in models/controlnet. It is recognised by its tensors: the file name "
                        "does not matter."
                    ),
                ),
            ],
            outputs=[
                RepControlNetSocket.Output(
                    display_name="repcontrolnet", tooltip="The branch and its adapter, for Apply RepControlNet."
                )
            ],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(read_repcontrolnet(*load_weights("controlnet", name), name=name))

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        return modified_at("controlnet", name)


class ApplyRepControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ApplyRepControlNet",
            display_name="Apply RepControlNet",
            category=CATEGORY,
            description=(
                "Steers the pose with a skeleton or landmark image. Folded into the weights (Eq. 6), each step costs "
                "what the plain model costs. Wire it behind the checkpoint loader; LoRAs may stand before or after it."
            ),
            search_aliases=["rep controlnet", "pose", "skeleton", "landmarks", "openpose", "apply controlnet", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 or SDXL model that the RepControlNet was made for."),
                io.Conditioning.Input("positive", tooltip="What the picture shall show."),
                io.Conditioning.Input("negative", tooltip="What the picture shall not show."),
                RepControlNetSocket.Input("repcontrolnet", tooltip="From Load RepControlNet."),
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The condition image: a skeleton, face landmarks, or both, for instance from Draw Landmarks. "
                        "Any size."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=BranchMode,
                    default=BranchMode.AUTO,
                    tooltip=(
                        "auto: folded where it can be, and the node says which it chose. folded: in the weights, no "
                        "cost per step. live: beside the model, for a part of the steps, at about twice the cost. "
                        "adapter_only: the model already carries the fold, for instance a checkpoint from Save Folded "
                        "Model."
                    ),
                ),
                io.Float.Input(
                    "alpha",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Weight of the model's own layers, alpha in W' = alpha W + beta W_m. Leave at 1 unless you "
                        "experiment."
                    ),
                ),
                io.Float.Input(
                    "beta",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Weight of the branch's layers, beta in W' = alpha W + beta W_m. Lower it where the control "
                        "is too stiff."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    tooltip="Strength of the condition image. 0 leaves it out; the branch stays, its weight is beta.",
                ),
                *step_range(
                    "Where in the sampling the control begins: 0 is the first, noisiest step. Other than 0 needs mode "
                    "live or auto.",
                    "Where in the sampling the control ends: 1 is the last step. Other than 1 needs mode live or auto.",
                    optional=True,
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The controlled model; the model that came in stays as it was."
                ),
                io.Conditioning.Output(
                    display_name="positive", tooltip="The conditioning with the encoded condition image."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The conditioning with the encoded condition image."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        repcontrolnet,
        image,
        mode,
        alpha=1.0,
        beta=1.0,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    ) -> io.NodeOutput:
        applied = apply_repcontrolnet(
            model,
            positive,
            negative,
            repcontrolnet,
            image,
            BranchMode(mode),
            alpha,
            beta,
            strength,
            StepRange(start_percent, end_percent),
        )
        return io.NodeOutput(applied.model, applied.positive, applied.negative, ui=ui.PreviewText(applied.note))


class SaveFoldedModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_SaveFoldedModel",
            display_name="Save Folded Model",
            category=CATEGORY,
            description=(
                "Saves a model with the RepControlNet folded into its weights as a plain file that any tool loads, and "
                "the adapter beside it. With clip and vae it is a checkpoint, without them a diffusion model."
            ),
            search_aliases=["merge", "bake", "export", "save checkpoint", "reparameterize", "fpga"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model output of Apply RepControlNet, folded."),
                RepControlNetSocket.Input(
                    "repcontrolnet",
                    tooltip="The RepControlNet that was folded in; its adapter is saved beside the model.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Connect clip and vae to save a whole checkpoint."),
                io.Vae.Input("vae", optional=True, tooltip="Connect clip and vae to save a whole checkpoint."),
                io.String.Input(
                    "filename_prefix",
                    default="fpga/folded",
                    tooltip="Folder and beginning of the file names, inside ComfyUI's output folder.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="model_path",
                    tooltip="Where the model was saved: move it to models/checkpoints or models/diffusion_models.",
                ),
                io.String.Output(
                    display_name="adapter_path",
                    tooltip=(
                        "Where the adapter was saved: move it to models/controlnet, and apply it with mode "
                        "adapter_only."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, model, repcontrolnet, filename_prefix, clip=None, vae=None) -> io.NodeOutput:
        folder, name, counter, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        saved = save_folded_model(model, repcontrolnet, f"{folder}/{name}_{counter:05}_", clip, vae)
        return io.NodeOutput(saved.model_path, saved.adapter_path, ui=ui.PreviewText("\n".join(saved)))


NODES: list[type[io.ComfyNode]] = [LoadRepControlNet, ApplyRepControlNet, SaveFoldedModel]
