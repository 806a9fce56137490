"""Cast nodes: say who stands where, and judge how alike everyone came out."""

from comfy_api.v0_0_2 import io, ui

from ..fpga_core.evaluation.facesim import draw_scores, score_cast
from ..fpga_core.faces.detection import as_pictures, detect_faces
from ..fpga_core.identity.cast import Assignment, make_cast, parse_strengths
from ..fpga_core.identity.cast_preview import draw_casting
from ..fpga_core.identity.places import Edges, find_places
from ..fpga_core.shapes import Extent
from .sockets import CastSocket, FaceAnalysisSocket, FacesSocket, IdentitySocket, PoseKeypointSocket

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
                "Says who stands where: any number of identities, each with a region of the picture from boxes, masks, "
                "found faces or a skeleton. The preview shows who got which place, and what could not be placed."
            ),
            search_aliases=["multi id", "several people", "regions", "regional identity", "group photo", "fpga"],
            inputs=[
                io.Autogrow.Input(
                    "identities",
                    template=io.Autogrow.TemplateNames(
                        IdentitySocket.Input(
                            "identity", tooltip="One person. Another socket appears for the next one."
                        ),
                        names=[f"identity_{number}" for number in range(1, MAX_PEOPLE + 1)],
                        min=1,
                    ),
                    tooltip="The people, from Encode Identity or Load Identity, in the order that assign refers to.",
                ),
                io.Int.Input(
                    "width", default=512, min=16, max=16384, step=8, tooltip="Width of the picture in pixels."
                ),
                io.Int.Input(
                    "height", default=512, min=16, max=16384, step=8, tooltip="Height of the picture in pixels."
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to place people in: its size replaces width and height, the preview shows it.",
                ),
                io.BoundingBox.Input(
                    "boxes",
                    optional=True,
                    force_input=True,
                    tooltip="One face box per person, in pixels of the picture. Connect at most one source of places.",
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="One mask per person, as a batch. A cast made from masks has no face boxes to score with.",
                ),
                FacesSocket.Input(
                    "faces",
                    optional=True,
                    tooltip="One place per face from Detect Faces, needed where people are assigned by likeness.",
                ),
                PoseKeypointSocket.Input(
                    "skeleton",
                    optional=True,
                    tooltip="One place per body from SDPose, OpenPose or DWPose: where its head is.",
                ),
                io.Combo.Input(
                    "assign",
                    options=Assignment,
                    default=Assignment.ORDER,
                    tooltip=(
                        "order: place 1 to identity 1, and so on. left_to_right: the leftmost place to identity 1. "
                        "likeness: everyone to the face that is most like them; needs faces found by a face analysis."
                    ),
                ),
                io.Float.Input(
                    "grow",
                    default=0.1,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="What each region gains on every side, as a fraction of its size: room for hair and chin.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the soft edge inside each grown region, as a fraction of its size.",
                ),
                io.String.Input(
                    "strengths",
                    default="",
                    tooltip="One number from 0 to 5 per identity, in their order, such as 1, 0.8, 1. Empty: all 1.",
                ),
            ],
            outputs=[
                CastSocket.Output(display_name="cast", tooltip="The people and their places, for Apply Cast."),
                io.Image.Output(
                    display_name="preview", tooltip="The regions, coloured, numbered and named, with notes."
                ),
                io.String.Output(
                    display_name="notes", tooltip="Who was placed where, who was left out, and what to look at."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, identities, width, height, assign, grow, feather, strengths,
        image=None, boxes=None, masks=None, faces=None, skeleton=None,
    ) -> io.NodeOutput:  # fmt: skip
        canvas = Extent(width, height) if image is None else Extent(image.shape[2], image.shape[1])
        places = find_places(canvas, Edges(grow, feather), boxes, masks, faces, skeleton)
        casting = make_cast(list(identities.values()), canvas, places, Assignment(assign), parse_strengths(strengths))
        preview = draw_casting(casting, None if image is None else image[0])
        return io.NodeOutput(casting.cast, preview, casting.text, ui=ui.PreviewText(casting.text))


class ScoreCast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ScoreCast",
            display_name="Score Cast",
            category=CATEGORY,
            description=(
                "Finds the faces of a picture again and says how alike everyone of the cast came out (FaceSim). As in "
                "the paper, a face counts only where it overlaps the place meant for it by an IoU above 0.5."
            ),
            search_aliases=["facesim", "face similarity", "likeness", "evaluate", "identity score", "fpga"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The pictures to judge, one or a batch, of the cast's aspect ratio."),
                CastSocket.Input("cast", tooltip="Who is meant to be where, from Make Cast."),
                FaceAnalysisSocket.Input(
                    "face_analysis", tooltip="The face analysis that the identities were encoded with."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The pictures with places (dashed) and faces, numbered and scored."
                ),
                io.String.Output(display_name="report", tooltip="A table: FaceSim, likeness and IoU of each person."),
                io.Float.Output(
                    display_name="facesim",
                    tooltip="Mean FaceSim over people and pictures; 1 = identical. NaN: the cast has no face boxes.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image, cast, face_analysis) -> io.NodeOutput:
        portraits = cast.portraits(face_analysis.recogniser)
        found = detect_faces(as_pictures(image), face_analysis)
        score = score_cast(portraits, found, face_analysis.recogniser, cast.extent)
        drawn = draw_scores(score, portraits, found, image)
        return io.NodeOutput(drawn, score.report(), score.facesim, ui=ui.PreviewText(score.report()))


NODES: list[type[io.ComfyNode]] = [MakeCast, ScoreCast]
