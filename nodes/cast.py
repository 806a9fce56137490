"""Cast nodes: say who stands where, and measure how closely each person resembles their identity."""

import torch
from comfy_api.v0_0_2 import io

from ..fpga_core.evaluation.facesim import draw_scores, score_cast
from ..fpga_core.faces.detection import as_pictures, detect_faces
from ..fpga_core.identity.assignment import Assignment
from ..fpga_core.identity.cast_preview import draw_casting
from ..fpga_core.identity.casting import Casting, choose_canvas, make_cast
from ..fpga_core.identity.drawing import Drawing, read_drawing
from ..fpga_core.identity.places import Edges, find_places
from ..fpga_core.identity.strengths import parse_strengths
from ..fpga_core.shapes import Extent
from .reports import report
from .sockets import (
    CastSocket,
    DrawingSocket,
    FaceAnalysisSocket,
    FacesSocket,
    IdentitySocket,
    PoseKeypointSocket,
)

CATEGORY = "FPGA Portrait/cast"
MAX_PEOPLE = 32


class MakeCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_MakeCast",
            display_name="Make Cast",
            category=CATEGORY,
            description=(
                "Decides who stands where. Draw a head for each person on the canvas, or connect boxes, masks, faces "
                "or a skeleton. The size of the picture, and the pose of the people, come from here too."
            ),
            search_aliases=[
                "two people",
                "multiple people",
                "several people",
                "character",
                "consistent character",
                "regional prompt",
                "draw box",
                "multi id",
                "regions",
                "regional identity",
                "group photo",
                "pose editor",
                "fpga",
            ],
            inputs=[
                io.Int.Input(
                    "width",
                    default=512,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Width of the picture in pixels. Ignored if an image is connected.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Height of the picture in pixels. Ignored if an image is connected.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip=(
                        "A picture to place the people in. Its size replaces width and height, and the preview is "
                        "drawn on it."
                    ),
                ),
                io.MultiType.Input(
                    "boxes",
                    types=[io.BoundingBox, io.Array],
                    optional=True,
                    tooltip=(
                        "One face box per person: boxes in pixels of the picture, or elements from Create Bounding "
                        "Boxes. A box with a description belongs to the person of that name."
                    ),
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip=(
                        "One mask per person, as a batch. FaceSim needs face boxes, so a cast made from masks has no "
                        "FaceSim."
                    ),
                ),
                FacesSocket.Input(
                    "faces",
                    optional=True,
                    tooltip="Faces from Detect Faces. Each face is one place. Required if assign is likeness.",
                ),
                PoseKeypointSocket.Input(
                    "skeleton",
                    optional=True,
                    tooltip="Bodies from SDPose, OpenPose or DWPose. The head of each body is one place.",
                ),
                io.Combo.Input(
                    "assign",
                    options=Assignment,
                    default=Assignment.ORDER,
                    tooltip=(
                        "Who gets which place, if places have no names. order: identity 1 gets place 1, and so on. "
                        "left_to_right: identity 1 gets the leftmost place. likeness: everyone gets the face that "
                        "resembles them most; this needs faces from a face analysis."
                    ),
                ),
                io.Float.Input(
                    "grow",
                    default=0.2,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip=(
                        "How far each region extends beyond its place on every side, as a fraction of its size. Raise "
                        "it if hair or chin is cut off."
                    ),
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip=(
                        "Width of the soft edge inside each grown region, as a fraction of its size. Raise it if the "
                        "edges of the regions show."
                    ),
                ),
                io.String.Input(
                    "strengths",
                    default="",
                    tooltip=(
                        "The strength of each identity, from 0 to 5, in order: for example 1, 0.8, 1. If this is "
                        "empty, every strength is 1."
                    ),
                ),
                DrawingSocket.Input(
                    "drawing",
                    optional=True,
                    extra_dict={"socketless": True},
                    tooltip=(
                        "The canvas. Drag to place a person: a head, with a body beneath it. Move heads, bodies and "
                        "joints with the mouse; double-click a head to name it. Nothing else may give the places then."
                    ),
                ),
                io.Autogrow.Input(
                    "identities",
                    template=io.Autogrow.TemplateNames(
                        IdentitySocket.Input(
                            "identity",
                            optional=True,  # each of them, so that anyone can be muted
                            tooltip="One person. Another socket appears when this one is connected.",
                        ),
                        names=[f"identity_{number}" for number in range(1, MAX_PEOPLE + 1)],
                        min=1,
                    ),
                    tooltip=(
                        "The people, from Encode Identity or Load Identity. assign and strengths refer to them in this "
                        "order."
                    ),
                    optional=True,  # and last, or pasting would lose wires
                ),
            ],
            outputs=[
                CastSocket.Output(display_name="cast", tooltip="The people and their places, for Apply Cast."),
                io.Image.Output(
                    display_name="preview", tooltip="The regions in colour, with numbers, names and notes."
                ),
                io.String.Output(
                    display_name="notes", tooltip="Who was placed where, who was left out, and what to check."
                ),
                io.Int.Output(display_name="width", tooltip="Width of the picture, for Empty Latent Image."),
                io.Int.Output(display_name="height", tooltip="Height of the picture, for Empty Latent Image."),
                PoseKeypointSocket.Output(
                    display_name="skeleton", tooltip="The bodies drawn on the canvas, for Draw Landmarks."
                ),
            ],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls,
        identities,
        width,
        height,
        assign,
        grow,
        feather,
        strengths,
        image=None,
        boxes=None,
        masks=None,
        faces=None,
        skeleton=None,
        drawing=None,
    ) -> io.NodeOutput:
        canvas = choose_canvas(image, width, height)
        drawn, edges = read_drawing(drawing), Edges(grow, feather)
        found = find_places(
            canvas,
            edges,
            boxes=boxes,
            masks=masks,
            faces=faces,
            skeleton=skeleton,
            drawing=drawn,
            boxes_canvas=boxes_canvas(cls.hidden),
        )
        casting = make_cast(
            list(identities.values()),
            canvas,
            found,
            assign=Assignment(assign),
            strengths=parse_strengths(strengths),
            numbers=[int(name.rpartition("_")[2]) for name in identities],  # a muted person leaves a gap
        )
        return cast_output(casting, drawn, image)


def boxes_canvas(hidden: io.HiddenHolder | None) -> Extent | None:
    """Returns the size of the canvas on which all boxes of the prompt were drawn; None unless it is known and one size.

    Only Create Bounding Boxes says it. The node's own id would tell which boxes are its own, but a node that asks for
    its id is not shared between workflows by ComfyUI's cache.
    """
    prompt = (hidden and hidden.prompt) or {}
    given = [node["inputs"].get("boxes") for node in prompt.values() if node["class_type"] == "FPGA_MakeCast"]
    links = [value for value in given if isinstance(value, list) and value]  # or the boxes themselves, over the API
    sources = [prompt.get(link[0], {}) if isinstance(link[0], str) else {} for link in links]
    sizes = {tuple(source.get("inputs", {}).get(side) for side in ("width", "height")) for source in sources}
    is_drawn = all(source.get("class_type") == "CreateBoundingBoxes" for source in sources)
    if not is_drawn or len(sizes) != 1:
        return None
    width, height = next(iter(sizes))
    return Extent(width, height) if isinstance(width, int) and isinstance(height, int) else None


def cast_output(casting: Casting, drawing: Drawing, image: torch.Tensor | None) -> io.NodeOutput:
    """What Make Cast returns and shows."""
    canvas = casting.cast.extent
    preview = draw_casting(casting, None if image is None else image[0])
    shown = report("\n".join(casting.summaries), casting.notes)
    size = (canvas.width, canvas.height)
    return io.NodeOutput(casting.cast, preview, casting.text, *size, drawing.pose_keypoints(canvas), ui=shown)


class ScoreCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ScoreCast",
            display_name="Score Cast",
            category=CATEGORY,
            description=(
                "Measures how closely each person in a picture resembles their identity (FaceSim). As in the paper, a "
                "face counts only if its overlap with the place meant for it has an IoU above 0.5."
            ),
            search_aliases=["facesim", "face similarity", "likeness", "evaluate", "identity score", "fpga"],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "image", tooltip="The pictures to score, one or a batch. They must have the cast's aspect ratio."
                ),
                CastSocket.Input("cast", tooltip="The people and the places meant for them, from Make Cast."),
                FaceAnalysisSocket.Input(
                    "face_analysis", tooltip="The face analysis that the identities were encoded with."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The pictures with numbered and scored faces. Dashed boxes are the places meant for them.",
                ),
                io.String.Output(
                    display_name="report", tooltip="A table of FaceSim, likeness and IoU for each person."
                ),
                io.Float.Output(
                    display_name="facesim",
                    tooltip=(
                        "Mean FaceSim over all people and pictures. 1 means identical. NaN means that the cast has no "
                        "face boxes."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, image, cast, face_analysis) -> io.NodeOutput:
        portraits = cast.portraits(face_analysis.recogniser)
        found = detect_faces(as_pictures(image), face_analysis)
        score = score_cast(portraits, found, recogniser=face_analysis.recogniser, canvas=cast.extent)
        drawn = draw_scores(score, portraits, pictures=found, images=image)
        return io.NodeOutput(drawn, score.report(), score.facesim, ui=report(score.report()))


NODES: list[type[io.ComfyNode]] = [MakeCast, ScoreCast]
