"""RepControlNet nodes: load a file, apply it, and save a model with the branch folded into its weights."""

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.patching.acceleration.quantization import WeightFormat
from ..fpga_core.patching.repcontrolnet.apply import BranchMode, RepControlNetSettings, apply_repcontrolnet
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
                "Loads a RepControlNet: pose control that is folded into the model's weights and then adds no cost per "
                "step."
            ),
            search_aliases=["rep controlnet", "reparameterized controlnet", "fpga", "pose control", "load controlnet"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list("controlnet"),
                    tooltip=(
                        "A RepControlNet file in models/controlnet. The file is recognised by its tensors, so its name "
                        "does not matter."
                    ),
                ),
            ],
            outputs=[
                RepControlNetSocket.Output(
                    display_name="repcontrolnet", tooltip="The branch and its hint encoder, for Apply RepControlNet."
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
                "Steers the pose with a skeleton or landmark image. The control is folded into the model's weights "
                "(Eq. 6), so a step costs no more than with the plain model. Connect this node after the checkpoint "
                "loader; LoRAs can come before or after it. Detailers and tiled upscalers need the prompts from before "
                "this node."
            ),
            search_aliases=["rep controlnet", "pose", "skeleton", "landmarks", "openpose", "apply controlnet", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="The SD1.5 or SDXL model that the RepControlNet was made for."),
                io.Conditioning.Input("positive", tooltip="The prompt for what the picture should show."),
                io.Conditioning.Input("negative", tooltip="The prompt for what the picture should not show."),
                RepControlNetSocket.Input("repcontrolnet", tooltip="The RepControlNet, from Load RepControlNet."),
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The condition image: a skeleton, face landmarks, or both, for example from Draw Landmarks. "
                        "Any size works."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=BranchMode,
                    default=BranchMode.AUTO,
                    tooltip=(
                        "Where the branch runs. auto: folded if possible; the node shows which mode it chose. folded: "
                        "in the weights, at no cost per step. live: beside the model, for part of the steps, at up to "
                        "twice the cost. adapter_only: nowhere, because the model already carries the fold, as a "
                        "checkpoint from Save Folded Model does."
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
                        "Weight of the model's own layers: alpha in W' = alpha W + beta W_m. Leave it at 1 unless you "
                        "are experimenting."
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
                        "Weight of the branch's layers: beta in W' = alpha W + beta W_m. Lower it if the control is "
                        "too strict."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Strength of the condition image. 0 leaves the image out. The branch stays in place; beta sets "
                        "its weight."
                    ),
                ),
                *step_range(
                    (
                        "The point in sampling at which the control starts. 0 is the first, noisiest step. Any other "
                        "value needs mode live or auto."
                    ),
                    (
                        "The point in sampling at which the control ends. 1 is the last step. Any other value needs "
                        "mode live or auto."
                    ),
                    optional=True,
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the control applied. The connected model is unchanged.",
                ),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt with the encoded condition image."),
                io.Conditioning.Output(display_name="negative", tooltip="The prompt with the encoded condition image."),
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
        steps = StepRange(start_percent, end_percent)
        settings = RepControlNetSettings(mode=BranchMode(mode), alpha=alpha, beta=beta, strength=strength, steps=steps)
        applied = apply_repcontrolnet(model, positive, negative, branch=repcontrolnet, image=image, settings=settings)
        return io.NodeOutput(applied.model, applied.positive, applied.negative, ui=ui.PreviewText(applied.note))


class SaveFoldedModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_SaveFoldedModel",
            display_name="Save Folded Model",
            category=CATEGORY,
            description=(
                "Saves a model with the RepControlNet folded into its weights, as a plain file that any tool can load. "
                "The hint encoder is saved beside it. With clip and vae the file is a checkpoint; without them it is a "
                "diffusion model."
            ),
            search_aliases=["merge", "bake", "export", "save checkpoint", "reparameterize", "fpga"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model output of Apply RepControlNet in folded mode."),
                RepControlNetSocket.Input(
                    "repcontrolnet",
                    tooltip="The RepControlNet that was folded in. Its hint encoder is saved beside the model.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Connect both clip and vae to save a complete checkpoint."
                ),
                io.Vae.Input("vae", optional=True, tooltip="Connect both clip and vae to save a complete checkpoint."),
                io.String.Input(
                    "filename_prefix",
                    default="fpga/folded",
                    tooltip="Folder and start of the file names, inside ComfyUI's output folder.",
                ),
                io.Combo.Input(
                    "weights",
                    options=WeightFormat,
                    default=WeightFormat.AS_LOADED,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "How the model's weights are stored. as_loaded keeps their precision. float8_e4m3fn and "
                        "int8_tensorwise make the file and the memory smaller, at some loss of detail: the fold is "
                        "computed in full precision and rounded once, which is more exact than applying a "
                        "RepControlNet to a quantized model."
                    ),
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="model_path",
                    tooltip=(
                        "The path of the saved model. Move a checkpoint to models/checkpoints, or a diffusion model to "
                        "models/diffusion_models."
                    ),
                ),
                io.String.Output(
                    display_name="adapter_path",
                    tooltip=(
                        "The path of the saved hint encoder. Move the file to models/controlnet and apply it with mode "
                        "adapter_only."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, model, repcontrolnet, filename_prefix, clip=None, vae=None, weights="as_loaded") -> io.NodeOutput:
        folder, name, counter, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        stem, form = f"{folder}/{name}_{counter:05}_", WeightFormat(weights)
        saved = save_folded_model(model, repcontrolnet, stem, clip=clip, vae=vae, form=form)
        return io.NodeOutput(saved.model_path, saved.hint_encoder_path, ui=ui.PreviewText("\n".join(saved)))


NODES: list[type[io.ComfyNode]] = [LoadRepControlNet, ApplyRepControlNet, SaveFoldedModel]
