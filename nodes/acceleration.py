"""Acceleration nodes: fewer layers in most steps."""

from comfy_api.v0_0_2 import io

from ..fpga_core.acceleration.deepcache import DeepCacheSettings
from ..fpga_core.patching.acceleration.deepcache import apply_deepcache
from ..fpga_core.patching.schedule import StepRange
from .step_range import step_range

CATEGORY = "FPGA Portrait/acceleration"


class ApplyDeepCache(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ApplyDeepCache",
            display_name="Apply DeepCache",
            category=CATEGORY,
            description=(
                "Makes pictures in about half the time: most steps run only the outer layers of the model, and reuse "
                "what the deep layers computed in an earlier step. Works with casts, RepControlNets, ControlNets and "
                "LoRAs. Connect the model from before this node to Restore Faces, which needs every step."
            ),
            search_aliases=["deep cache", "speed", "acceleration", "faster sampling", "feature cache", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5, SD2 or SDXL model, with all that is applied to it."),
                io.Int.Input(
                    "interval",
                    default=3,
                    min=1,
                    max=20,
                    optional=True,
                    tooltip=(
                        "Every so many steps, the whole model runs. 2 is careful, 3 is a good start, and 5 and more "
                        "change the picture. 1 turns DeepCache off."
                    ),
                ),
                io.Int.Input(
                    "branch",
                    default=0,
                    min=0,
                    max=11,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "The number of the deepest input block that runs in every step. 0 saves the most. Raise it if "
                        "faces or details suffer: 1 to 3 keep more of the picture and save less."
                    ),
                ),
                *step_range(
                    (
                        "The point in sampling at which steps begin to be shortened. 0 is the first, noisiest step. "
                        "Raise it if the composition changes."
                    ),
                    (
                        "The point in sampling at which steps cease to be shortened. 1 is the last step. Lower it if "
                        "fine detail suffers."
                    ),
                    optional=True,
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with DeepCache. The connected model is unchanged.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, interval, branch, start_percent, end_percent) -> io.NodeOutput:
        settings = DeepCacheSettings(interval=interval, branch=branch)
        return io.NodeOutput(apply_deepcache(model, settings, StepRange(start_percent, end_percent)))


NODES: list[type[io.ComfyNode]] = [ApplyDeepCache]
