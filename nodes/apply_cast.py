"""Nodes that apply a cast to a model or a ControlNet, and nodes that show where each person acted."""

from typing import Any

from comfy_api.v0_0_2 import io

from ..fpga_core.identity.attention_maps import draw_attention
from ..fpga_core.identity.cast import as_cast
from ..fpga_core.identity.layer_emphasis import LayerEmphasis
from ..fpga_core.patching.cast.backends import apply_people, connected_backends
from ..fpga_core.patching.cast.controlnet import apply_cast_controlnet
from ..fpga_core.patching.cast.record import record_attention
from ..fpga_core.patching.schedule import StepRange
from ..fpga_core.shapes import PIXELS_PER_LATENT, Extent
from .reports import report
from .sockets import AttentionRecordSocket, IdentityAdapterSocket, people_input
from .step_range import step_range

CATEGORY = "FPGA Portrait/cast"


class ApplyCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ApplyCast",
            display_name="Apply Cast",
            category=CATEGORY,
            description=(
                "Applies a cast to the model: each person acts only inside their own region (Mask Guided Multi-ID "
                "Cross Attention). Everyone is made known by what the model understands: an identity adapter, a LoRA, "
                "reference pictures, or words. Connect all three outputs to the sampler. Detailers and tiled upscalers "
                "need the model and prompts from before this node."
            ),
            search_aliases=[
                "ipadapter faceid",
                "instantid",
                "pulid",
                "multi id",
                "portrait",
                "same person",
                "consistent character",
                "two people",
                "face identity",
                "regional ipadapter",
                "fpga",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The model. Adapters need an SD1.5 or SDXL model of their own architecture; reference pictures "
                        "need FLUX Kontext, FLUX.2 or Qwen-Image-Edit; a LoRA needs the base that it was trained on."
                    ),
                ),
                io.Conditioning.Input("positive", tooltip="The prompt for what the picture should show."),
                io.Conditioning.Input("negative", tooltip="The prompt for what the picture should not show."),
                IdentityAdapterSocket.Input(
                    "adapter",
                    optional=True,
                    tooltip="The identity adapter, from Load Identity Adapter, for people whose photos were encoded.",
                ),
                people_input("The people and their places, from Make Cast, or one identity for the whole picture."),
                io.Vae.Input(
                    "vae", optional=True, tooltip="The model's VAE, for people who are known by reference pictures."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "The model's CLIP. If it is connected, each person's description is said in their place only. "
                        "Each description makes the steps slower."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip=(
                        "Multiplies the strength of every person. 1 is the strength that the adapter was trained with; "
                        "0 leaves the model unchanged. Lower it to give the prompt more influence."
                    ),
                ),
                *step_range(
                    "The point in sampling at which the identities start to act. 0 is the first step.",
                    "The point in sampling at which the identities stop acting. 1 is the last step.",
                ),
                io.Combo.Input(
                    "layer_emphasis",
                    options=LayerEmphasis,
                    default=LayerEmphasis.UNIFORM,
                    advanced=True,
                    tooltip=(
                        "Which attention layers act most strongly. uniform treats all layers alike, as in training. "
                        "early and late favour the layers that run first or last. middle and ends favour the middle of "
                        "the network or its two ends."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model with the cast applied. Connect it to the sampler."
                ),
                io.Conditioning.Output(
                    display_name="positive", tooltip="The positive prompt with the people's identity tokens."
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative prompt with the tokens that the adapter expects there.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        adapter=None,
        cast: Any = None,  # it follows an optional input
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        layer_emphasis=LayerEmphasis.UNIFORM,
        vae=None,
        clip=None,
    ) -> io.NodeOutput:
        applied, chosen = apply_people(
            (model, positive, negative),
            cast=as_cast(cast),
            backends=connected_backends(adapter, vae, clip, emphasis=LayerEmphasis(layer_emphasis)),
            strength=strength,
            steps=StepRange(start_percent, end_percent),
        )
        return io.NodeOutput(*applied, ui=report(chosen))


class ApplyCastControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ApplyCastControlNet",
            display_name="Apply Cast ControlNet",
            category=CATEGORY,
            description=(
                "Applies a ControlNet whose cross attention reads the people of a cast, each inside their own region. "
                "The model itself is unchanged. With InstantID's ControlNet and adapter, this is InstantID for several "
                "people."
            ),
            search_aliases=["identitynet", "instantid controlnet", "identity controlnet", "face controlnet", "fpga"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt for what the picture should show."),
                io.Conditioning.Input("negative", tooltip="The prompt for what the picture should not show."),
                io.ControlNet.Input(
                    "control_net", tooltip="Any ControlNet for SD1.5 or SDXL, from Load ControlNet Model."
                ),
                IdentityAdapterSocket.Input(
                    "adapter",
                    tooltip=(
                        "The identity adapter, from Load Identity Adapter. It must match the ControlNet's architecture."
                    ),
                ),
                people_input("The people and their places, from Make Cast, or one identity for the whole picture."),
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The condition image that the ControlNet expects, such as a skeleton, landmarks or a depth map."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Strength of the ControlNet. Set the strength of each person in Make Cast.",
                ),
                *step_range(
                    "The point in sampling at which the ControlNet starts to act. 0 is the first step.",
                    "The point in sampling at which the ControlNet stops acting. 1 is the last step.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="The positive prompt with the ControlNet and the people."
                ),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative prompt with the ControlNet and the tokens that the adapter expects there.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, control_net, adapter, cast, image, strength, start_percent, end_percent
    ) -> io.NodeOutput:
        steps = StepRange(start_percent, end_percent)
        applied = apply_cast_controlnet(
            positive,
            negative,
            control_net,
            adapter=adapter,
            cast=as_cast(cast),
            image=image,
            strength=strength,
            steps=steps,
        )
        return io.NodeOutput(*applied)


class RecordAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_RecordAttention",
            display_name="Record Attention",
            category=CATEGORY,
            description=(
                "Records where each identity acts, in one attention layer at one sampling step. Place it before or "
                "after Apply Cast, and draw the result with Show Attention. All other layers and steps run at full "
                "speed."
            ),
            search_aliases=["attention map", "attention heatmap", "daam", "visualize attention", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="The model to record, on its way to the sampler."),
                io.Int.Input(
                    "layer",
                    default=0,
                    min=0,
                    max=255,
                    tooltip=(
                        "The cross-attention layer to record, counted from 0 in the order in which they run. SD1.5 has "
                        "16: 0-5 on the way down, 6 in the middle and 7-15 on the way up. Layers 0, 1 and 13-15 give "
                        "the finest maps. SDXL has 70."
                    ),
                ),
                io.Int.Input(
                    "step",
                    default=0,
                    min=0,
                    max=9999,
                    tooltip="The sampling step to record. 0 is the first step, with the most noise.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model that records. Connect it to the sampler."),
                AttentionRecordSocket.Output(
                    display_name="record", tooltip="The record of the latest runs, for Show Attention."
                ),
            ],
        )

    @classmethod
    def execute(cls, model, layer, step) -> io.NodeOutput:
        return io.NodeOutput(*record_attention(model, layer, step))


class ShowAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ShowAttention",
            display_name="Show Attention",
            category=CATEGORY,
            description=(
                "Draws where each identity acted: one image for each person in each generated picture, in that "
                "person's colour."
            ),
            search_aliases=["attention map", "attention heatmap", "visualize attention", "preview attention", "fpga"],
            inputs=[
                AttentionRecordSocket.Input("record", tooltip="The record, from Record Attention."),
                io.Latent.Input(
                    "latent",
                    tooltip=(
                        "The output of a sampler that uses the recorded model. If several samplers do, this chooses "
                        "the run to show."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="One image per person, picture by picture. Brighter areas are more active.",
                )
            ],
        )

    @classmethod
    def execute(cls, record, latent) -> io.NodeOutput:
        height, width = latent["samples"].shape[-2:]
        extent = Extent(width * PIXELS_PER_LATENT, height * PIXELS_PER_LATENT)
        return io.NodeOutput(draw_attention(record.maps_of(latent["samples"]), extent))


NODES: list[type[io.ComfyNode]] = [ApplyCast, ApplyCastControlNet, RecordAttention, ShowAttention]
