"""The people of a cast act in their places, in the model or in a ControlNet; and nodes that show where each did."""

from comfy_api.v0_0_2 import io

from ..fpga_core.identity.attention_maps import draw_attention
from ..fpga_core.identity.layer_emphasis import LayerEmphasis
from ..fpga_core.patching.cast.apply import apply_cast
from ..fpga_core.patching.cast.controlnet import apply_cast_controlnet
from ..fpga_core.patching.cast.record import record_attention
from ..fpga_core.patching.schedule import StepRange
from ..fpga_core.shapes import Extent
from .sockets import AttentionRecordSocket, CastSocket, IdentityAdapterSocket
from .step_range import step_range

CATEGORY = "FPGA Portrait/cast"
PIXELS_PER_LATENT = 8


class ApplyCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ApplyCast",
            display_name="Apply Cast",
            category=CATEGORY,
            description=(
                "Lets each person of a cast act in their own region and nowhere else, all in one node (Mask Guided "
                "Multi-ID Cross Attention). Wire all three outputs to the sampler."
            ),
            search_aliases=["ipadapter faceid", "instantid", "multi id", "face identity", "regional ipadapter", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 or SDXL model, whichever the adapter was trained for."),
                io.Conditioning.Input("positive", tooltip="The text of what the picture shall show."),
                io.Conditioning.Input("negative", tooltip="The text of what the picture shall not show."),
                IdentityAdapterSocket.Input("adapter", tooltip="From Load Identity Adapter."),
                CastSocket.Input("cast", tooltip="Who stands where, from Make Cast."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip="Factor on everyone's own strength: 1 is as trained, 0 leaves the model as it is.",
                ),
                *step_range(
                    "Where in the sampling the identities begin to act: 0 is the first step.",
                    "Where in the sampling the identities stop: 1 is the last step.",
                ),
                io.Combo.Input(
                    "layer_emphasis",
                    options=LayerEmphasis,
                    default=LayerEmphasis.UNIFORM,
                    advanced=True,
                    tooltip=(
                        "Which attention layers act most. uniform: all alike, as trained. early and late: layers that "
                        "run first or last. middle and ends: those in the middle of the network, or at both its ends."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the cast, for the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="The positive with the people's tokens."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The negative with what the adapter wants there in their place."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model, positive, negative, adapter, cast, strength, start_percent, end_percent,
        layer_emphasis=LayerEmphasis.UNIFORM,
    ) -> io.NodeOutput:  # fmt: skip
        steps, emphasis = StepRange(start_percent, end_percent), LayerEmphasis(layer_emphasis)
        return io.NodeOutput(*apply_cast(model, positive, negative, adapter, cast, strength, steps, emphasis))


class ApplyCastControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ApplyCastControlNet",
            display_name="Apply Cast ControlNet",
            category=CATEGORY,
            description=(
                "Applies a ControlNet that carries the people of a cast in its cross attention, each in their own "
                "region. The model itself stays as it is. With InstantID's ControlNet and adapter: InstantID for "
                "several people."
            ),
            search_aliases=["identitynet", "instantid controlnet", "identity controlnet", "face controlnet", "fpga"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The text of what the picture shall show."),
                io.Conditioning.Input("negative", tooltip="The text of what the picture shall not show."),
                io.ControlNet.Input(
                    "control_net", tooltip="Any ControlNet of SD1.5 or SDXL, from Load ControlNet Model."
                ),
                IdentityAdapterSocket.Input(
                    "adapter", tooltip="From Load Identity Adapter, of the ControlNet's architecture."
                ),
                CastSocket.Input("cast", tooltip="Who stands where, from Make Cast."),
                io.Image.Input("image", tooltip="The ControlNet's condition image: a skeleton, landmarks, depth, ..."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Strength of the ControlNet. How strongly each person acts in it is set in Make Cast.",
                ),
                *step_range(
                    "Where in the sampling the ControlNet begins to act: 0 is the first step.",
                    "Where in the sampling the ControlNet stops: 1 is the last step.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The positive with ControlNet and people."),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative with the ControlNet, and what the adapter wants in the people's place.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, control_net, adapter, cast, image, strength, start_percent, end_percent
    ) -> io.NodeOutput:
        steps = StepRange(start_percent, end_percent)
        applied = apply_cast_controlnet(positive, negative, control_net, adapter, cast, image, strength, steps)
        return io.NodeOutput(*applied)


class RecordAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_RecordAttention",
            display_name="Record Attention",
            category=CATEGORY,
            description=(
                "Records in one attention layer and one step which identity acted where. Stands before or after Apply "
                "Cast; Show Attention draws what was recorded. The other layers and steps are not slowed down."
            ),
            search_aliases=["attention map", "attention heatmap", "daam", "visualize attention", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="The model that goes to the sampler."),
                io.Int.Input(
                    "layer",
                    default=0,
                    min=0,
                    max=255,
                    tooltip=(
                        "Cross-attention layer, in the order in which they run. SD1.5 has 16: 0-5 on the way down, 6 "
                        "in the middle, 7-15 on the way up; 0, 1 and 13-15 are the finest. SDXL has 70."
                    ),
                ),
                io.Int.Input(
                    "step", default=0, min=0, max=9999, tooltip="Sampling step: 0 is the first, with the most noise."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model that records, for the sampler."),
                AttentionRecordSocket.Output(
                    display_name="record", tooltip="What the last run recorded, for Show Attention."
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
                "Draws where each identity acted: one picture per generated picture and person, in the person's colour."
            ),
            search_aliases=["attention map", "attention heatmap", "visualize attention", "preview attention", "fpga"],
            inputs=[
                AttentionRecordSocket.Input("record", tooltip="From Record Attention."),
                io.Latent.Input(
                    "latent", tooltip="The sampler's output: it makes this node wait until the run is over."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="Picture after picture, each with one image per person; brighter is more active.",
                )
            ],
        )

    @classmethod
    def execute(cls, record, latent) -> io.NodeOutput:
        height, width = latent["samples"].shape[-2:]
        return io.NodeOutput(draw_attention(record.maps, Extent(width * PIXELS_PER_LATENT, height * PIXELS_PER_LATENT)))


NODES: list[type[io.ComfyNode]] = [ApplyCast, ApplyCastControlNet, RecordAttention, ShowAttention]
