"""The pack's blueprints: parts of shipped workflows that are folded into one node, which shows what an artist changes.

`dev.py workflows` lets the editor fold them, writes each to subgraphs/, where ComfyUI finds it, and builds the
workflow that it is a part of with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import Page

PEOPLE = ("FPGA_EncodeIdentity", "FPGA_LoadFaceAnalysis")
ENDS = ("LoadImage", "SaveImage")
PLACES = ("FPGA_DetectFaces", "FPGA_MakeCast")
SHOWN = ("FPGA_ScoreCast", "PreviewImage")


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """One blueprint.

    Attributes:
        name: its name in the editor.
        description: what the editor says about it.
        outside: types of the workflow's nodes that are not folded.
        widgets: name that is shown -> title of a node inside, and the name of its widget.
        inputs, outputs: name of a socket as the editor folds it -> name that is shown.
    """

    name: str
    description: str
    outside: tuple[str, ...]
    widgets: dict[str, tuple[str, str]]
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


TEXTS = {"prompt": ("Positive", "text"), "negative prompt": ("Negative", "text")}
SEED = {"seed": ("KSampler (30 DDIM steps, guidance 5)", "seed")}
CHECKPOINT, ADAPTER = ("Load Checkpoint", "ckpt_name"), ("Load Identity Adapter", "name")
CONTROLNET = ("Load ControlNet Model", "control_net_name")
SIZE = {side: ("Empty Latent Image", side) for side in ("width", "height")}
RESTORING = {
    **TEXTS,
    "restores faces under (pixels)": ("Restore Faces", "size_limit_px"),
    "seed": ("Restore Faces", "seed"),
}
MODELS = {"checkpoint": CHECKPOINT, "adapter": ADAPTER}

CAST_IN_A_POSE = Blueprint(
    name="People in a Pose",
    description="Generates a picture of a cast: everyone in the place and the pose of a face in another picture.",
    outside=(*ENDS, *PEOPLE, *PLACES, *SHOWN, "EmptyLatentImage", "FPGA_DrawLandmarks"),
    widgets={**TEXTS, **SEED, **MODELS, "ControlNet": CONTROLNET},
    inputs={"image": "pose"},
)

BLUEPRINTS = {
    "single_identity": Blueprint(
        name="One Person from Photos",
        description="Places one person from photos in a new picture.",
        outside=ENDS,
        widgets={**TEXTS, **SIZE, **SEED, **MODELS, "face analysis": ("Load Face Analysis", "pack")},
        inputs={"images.photo_1": "photo"},
    ),
    "people_in_their_places": Blueprint(
        name="People in Their Places",
        description="Generates a picture of a cast: everyone in their place, and in the pose of the skeleton.",
        outside=(*ENDS, *PEOPLE, "FPGA_MakeCast"),
        widgets={**TEXTS, **SEED, **MODELS, "ControlNet": CONTROLNET},
    ),
    "restore_faces": Blueprint(
        name="Repair Faces",
        description="Restores the small faces of a picture, each as the person it should be, and nothing else.",
        outside=(*ENDS, *PEOPLE),
        widgets={**RESTORING, "who gets which face": ("Make Cast", "assign"), **MODELS, "ControlNet": CONTROLNET},
        inputs={f"identities.identity_{number}": f"identity {number}" for number in (1, 2, 3)},
    ),
    "face_swap": Blueprint(
        name="Swap a Face",
        description="Replaces the face in a picture with another person's. Pose, light and background stay.",
        outside=ENDS,
        widgets={
            **TEXTS,
            "likeness": ("Restore Faces", "identity_strength"),
            "seed": ("Restore Faces", "seed"),
            **MODELS,
            "ControlNet": CONTROLNET,
            "face analysis": ("Load Face Analysis", "pack"),
        },
        inputs={"images.photo_1": "photo", "image": "picture"},
    ),
    "multi_identity_cast": CAST_IN_A_POSE,
    "posed_identity": CAST_IN_A_POSE,
    "generate_and_restore": Blueprint(
        name="Generate and Repair People",
        description="Generates a picture of a cast, and then restores each small face as the person it should be.",
        outside=(*ENDS, *PEOPLE, *PLACES, *SHOWN),
        widgets={
            **TEXTS,
            **SIZE,
            "restores faces under (pixels)": ("Restore Faces", "size_limit_px"),
            **SEED,
            **MODELS,
            "ControlNet": CONTROLNET,
        },
        outputs={"IMAGE": "as generated", "image": "restored"},
    ),
}
"""Workflow -> the blueprint that it is built of. Two workflows can share one."""

FOLD = """([blueprint, widgets, inputs, outputs]) => {
  const inside = app.graph._nodes.filter((node) => !blueprint.outside.includes(node.type));
  const { subgraph, node } = app.graph.convertToSubgraph(new Set(inside));
  [subgraph.name, node.title] = [blueprint.name, blueprint.name];
  subgraph.description = blueprint.description;
  // The editor shows some widgets by itself, in an order and with names of its own.
  for (const slot of subgraph.inputs.filter((_, i) => node.inputs[i].link == null)) subgraph.removeInput(slot);
  for (const [label, title, name] of widgets) {
    const owner = subgraph.nodes.find((node) => node.title === title);
    const input = owner.inputs.find((input) => input.widget?.name === name);
    subgraph.addInput(label, input.type).connect(input, owner);
  }
  for (const [name, label] of inputs) subgraph.renameInput(subgraph.inputs.find((slot) => slot.name === name), label);
  for (const [name, label] of outputs) {
    subgraph.renameOutput(subgraph.outputs.find((slot) => slot.name === name), label);
  }
  subgraph.arrange(80);
}"""

ALONE = """() => {
  const saved = app.graph.serialize();
  const node = saved.nodes.find((node) => node.type === saved.definitions.subgraphs[0].id);
  for (const input of node.inputs) input.link = null;
  for (const output of node.outputs) output.links = [];
  return { ...saved, nodes: [{ ...node, pos: [0, 0] }], links: [], groups: [] };
}"""


def fold(page: Page, blueprint: Blueprint) -> dict:
    """Folds a blueprint's part of the graph that the editor shows.

    Returns:
        The blueprint alone, in the editor's format.
    """
    parts = {"name": blueprint.name, "description": blueprint.description, "outside": blueprint.outside}
    widgets = [[label, *place] for label, place in blueprint.widgets.items()]
    page.evaluate(FOLD, [parts, widgets, list(blueprint.inputs.items()), list(blueprint.outputs.items())])
    return page.evaluate(ALONE)
