"""The node that says of a person what encoders do not see."""

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.identity.describing import describe_person
from ..fpga_core.identity.identity import PersonLora
from .files import load_weights, modified_at
from .sockets import IdentitySocket

CATEGORY = "FPGA Portrait/identity"
MAX_PICTURES = 8

LORAS = "loras"
NO_LORA = "none"


def load_lora(file: str, strength: float, trigger_words: str) -> PersonLora | None:
    """Reads a person's LoRA from ComfyUI's folder of LoRAs; None if none is chosen."""
    return None if file == NO_LORA else PersonLora(file, load_weights(LORAS, file)[0], strength, trigger_words.strip())


class DescribePerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_DescribePerson",
            display_name="Describe Person",
            category=CATEGORY,
            description=(
                "Says who a person is without an identity adapter: by reference pictures, by a LoRA that was trained "
                "on the person, or in words. Apply Cast and Restore Faces use what the connected model understands."
            ),
            search_aliases=[
                "character lora",
                "character",
                "consistent character",
                "reference image",
                "reference latent",
                "person",
                "kontext",
                "qwen image edit",
                "trigger words",
                "fpga",
            ],
            inputs=[
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip=(
                        "The person, from Encode Identity or Load Identity, if photos were encoded. The description is "
                        "added to it."
                    ),
                ),
                io.String.Input(
                    "name",
                    default="",
                    tooltip=(
                        "The person's name, shown in labels and messages. If nothing else is said, it is also the "
                        "description: models know many people by name."
                    ),
                ),
                io.String.Input(
                    "description",
                    default="",
                    multiline=True,
                    tooltip=(
                        "How a prompt speaks of the person, for example: a woman with red hair. Apply Cast says it "
                        "only in the person's place if its clip is connected."
                    ),
                ),
                io.Combo.Input(
                    "lora",
                    options=[NO_LORA, *folder_paths.get_filename_list(LORAS)],
                    default=NO_LORA,
                    tooltip=(
                        "A LoRA that was trained on the person, from models/loras. It must fit the model that the cast "
                        "is applied to. Several people can have one each."
                    ),
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-5.0,
                    max=5.0,
                    step=0.01,
                    tooltip="How strongly the LoRA changes the model. 1 is as trained.",
                ),
                io.String.Input(
                    "trigger_words",
                    default="",
                    tooltip=(
                        "The words that the LoRA was trained to answer to. They go before the description. Without "
                        "Apply Cast's clip, write them in the prompt yourself."
                    ),
                ),
                io.Autogrow.Input(
                    "pictures",
                    template=io.Autogrow.TemplateNames(
                        io.Image.Input(
                            "picture",
                            optional=True,  # each of them, so that any can be muted
                            tooltip=(
                                "A reference picture of the person, or a batch. Another socket appears when this one "
                                "is connected."
                            ),
                        ),
                        names=[f"picture_{number}" for number in range(1, MAX_PICTURES + 1)],
                        min=1,
                    ),
                    tooltip=(
                        "Reference pictures, for models that read them (FLUX Kontext, FLUX.2, Qwen-Image-Edit). One is "
                        "usually enough; each makes every step slower."
                    ),
                    optional=True,  # and last, or pasting would lose wires
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="The person, for Make Cast or Save Identity."),
                io.String.Output(display_name="report", tooltip="What is known of the person."),
            ],
        )

    @classmethod
    def execute(
        cls, name, description, lora, lora_strength, trigger_words, pictures=None, identity=None
    ) -> io.NodeOutput:
        shown = list((pictures or {}).values())
        trained = load_lora(lora, lora_strength, trigger_words)
        person = describe_person(identity, name=name, words=description, pictures=shown, lora=trained)
        return io.NodeOutput(person, person.description, ui=ui.PreviewText(person.description))

    @classmethod
    def fingerprint_inputs(cls, lora, **_) -> float | None:
        return None if lora == NO_LORA else modified_at(LORAS, lora)


NODES: list[type[io.ComfyNode]] = [DescribePerson]
