"""Score nodes: measure pictures with every score there is, and send on those that are good enough."""

from pathlib import Path

import folder_paths
from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..fpga_core.evaluation.clip_text import CONFIG, ClipText
from ..fpga_core.evaluation.keeping import IfNone, keep_alike, split
from ..fpga_core.evaluation.scores import BLEED, CLIP_I, CLIP_T, DINO, FACESIM, MEASURES
from ..fpga_core.patching.picture_scores import Scorers, aims_of, half_connected, score_batch
from .reports import report
from .sockets import FaceAnalysisSocket, ScoresSocket, people_input

CATEGORY = "FPGA Portrait/cast"
TEXT_ENCODERS, NO_TEXT = "text_encoders", "none"


def text_folders() -> list[str]:
    """The folders with a whole CLIP, or its text side, in the layout of transformers."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(TEXT_ENCODERS)]
    return sorted({file.parent.name for root in roots for file in root.glob(f"*/{CONFIG}")})


def load_text(name: str) -> ClipText | None:
    """Loads the text side of that name; None for `none`."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(TEXT_ENCODERS)]
    found = [root / name for root in roots if (root / name / CONFIG).is_file()]
    return None if name == NO_TEXT else ClipText(found[0] if found else roots[0] / name)


class ScorePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_ScorePictures",
            display_name="Score Pictures",
            category=CATEGORY,
            description=(
                "Measures each picture of a batch with the scores of the paper: FaceSim and bleed for people, CLIP-I "
                "and DINO for references, CLIP-T for a prompt. What is not connected is left out."
            ),
            search_aliases=["evaluate", "rank", "clip score", "dino", "facesim", "similarity", "metrics", "fpga"],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "image", tooltip="The pictures to score, one or a batch. With a cast, in the cast's aspect ratio."
                ),
                people_input(
                    "The people who should be in the pictures: a cast, whose places count, or one identity, whose face "
                    "may be anywhere.",
                    optional=True,
                ),
                FaceAnalysisSocket.Input(
                    "face_analysis",
                    optional=True,
                    tooltip="The face analysis that the identities were encoded with, for FaceSim, likeness and bleed.",
                ),
                io.Image.Input(
                    "references",
                    optional=True,
                    tooltip="What the pictures should resemble, one picture or a batch, for CLIP-I and DINO.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="A CLIP-Vision from Load CLIP Vision, for CLIP-I and CLIP-T."
                ),
                io.ClipVision.Input(
                    "dino", optional=True, tooltip="A DINOv2 or DINOv3 from Load CLIP Vision, for DINO."
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the pictures should show, for CLIP-T. Leave it empty to skip that score.",
                ),
                io.Combo.Input(
                    "clip_text",
                    options=[NO_TEXT, *text_folders()],
                    default=NO_TEXT,
                    tooltip=(
                        "For CLIP-T: a folder in models/text_encoders with all files of the published CLIP whose "
                        "vision side is connected. ComfyUI's own text encoders lack the projection."
                    ),
                ),
            ],
            outputs=[
                ScoresSocket.Output(display_name="scores", tooltip="The scores of each picture, for Keep Alike."),
                io.String.Output(display_name="report", tooltip="A table with one line per picture."),
                io.Float.Output(
                    display_name="facesim",
                    tooltip=(
                        "Mean FaceSim, or likeness if nobody has a place. This and the following are NaN if they were "
                        "not measured."
                    ),
                ),
                io.Float.Output(
                    display_name="bleed", tooltip="Mean similarity of the faces with the other people. Less is better."
                ),
                io.Float.Output(display_name="clip_i", tooltip="Mean similarity with the references, seen by CLIP."),
                io.Float.Output(display_name="clip_t", tooltip="Mean similarity with the prompt, seen by CLIP."),
                io.Float.Output(display_name="dino", tooltip="Mean similarity with the references, seen by DINO."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image,
        prompt,
        clip_text,
        cast=None,
        face_analysis=None,
        references=None,
        clip_vision=None,
        dino=None,
    ) -> io.NodeOutput:
        scorers = Scorers(
            face_analysis=face_analysis, clip_vision=clip_vision, clip_text=load_text(clip_text), dino=dino
        )
        aims = aims_of(cast, face_analysis, references=references, prompt=prompt)
        scores = score_batch(image, scorers, aims)
        return io.NodeOutput(
            scores,
            scores.report(),
            scores.facesim,
            *map(scores.mean, (BLEED, CLIP_I, CLIP_T, DINO)),
            ui=report(scores.report(), half_connected(scorers, aims)),
        )


class KeepAlike(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_KeepAlike",
            display_name="Keep Alike",
            category=CATEGORY,
            description=(
                "Sends the good pictures of a batch on, best first, and the others aside, by a score of Score "
                "Pictures. The node shows how many it kept."
            ),
            search_aliases=["filter", "threshold", "best of", "select", "reject", "cherry pick", "facesim", "fpga"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The pictures that were scored."),
                ScoresSocket.Input("scores", tooltip="Their scores, from Score Pictures."),
                io.Combo.Input(
                    "score",
                    options=list(MEASURES),
                    default=FACESIM,
                    tooltip="The score to choose by. Less is better for bleed and copy-paste, more for the others.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.4,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "The least that a picture needs; for bleed and copy-paste, the most that it may have. Run "
                        "Score Pictures first to see what your pictures reach."
                    ),
                ),
                io.Int.Input(
                    "at_most",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="How many pictures to keep at most, the best ones. 0 keeps all that are good enough.",
                ),
                io.Combo.Input(
                    "if_none",
                    options=IfNone,
                    default=IfNone.NOTHING,
                    tooltip=(
                        "What to keep if no picture is good enough. nothing: what follows does not run, so nothing is "
                        "saved. the best one: it is sent on all the same, and the node says so."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="kept",
                    tooltip="The good pictures, best first. If there are none, what follows is skipped.",
                ),
                io.Image.Output(
                    display_name="aside",
                    tooltip="The other pictures, in their order. If there are none, what follows is skipped.",
                ),
                io.Int.Output(display_name="num_kept", tooltip="How many pictures are kept, for loops and switches."),
                io.String.Output(
                    display_name="numbers", tooltip="The numbers of the kept pictures in the batch, such as 3, 1."
                ),
            ],
        )

    @classmethod
    def execute(cls, image, scores, score, threshold, at_most, if_none) -> io.NodeOutput:
        choice = keep_alike(scores, score, threshold=threshold, at_most=at_most, if_none=IfNone(if_none))
        kept, aside = (ExecutionBlocker(None) if part is None else part for part in split(image, choice))
        shown = report(choice.report(), choice.warnings)
        return io.NodeOutput(kept, aside, len(choice.kept), choice.numbers, ui=shown)


NODES: list[type[io.ComfyNode]] = [ScorePictures, KeepAlike]
