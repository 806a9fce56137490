"""Socket types of this pack, and the ComfyUI types that it shares with other packs."""

from comfy_api.v0_0_2 import io

RepControlNetSocket = io.Custom("FPGA_REPCONTROLNET")
"""An `fpga_core.repcontrolnet.branch.RepControlNet`."""

FacesSocket = io.Custom("FPGA_FACES")
"""A tuple of `fpga_core.faces.face.PictureFaces`, one per picture of the batch."""

FaceAnalysisSocket = io.Custom("FPGA_FACE_ANALYSIS")
"""A `fpga_core.faces.face.FaceAnalyzer`."""

IdentitySocket = io.Custom("FPGA_IDENTITY")
"""A `fpga_core.identity.identity.Identity`."""

IdentityAdapterSocket = io.Custom("FPGA_IDENTITY_ADAPTER")
"""A `fpga_core.identity.adapters.IdentityAdapter`."""

CastSocket = io.Custom("FPGA_CAST")
"""A `fpga_core.identity.cast.Cast`."""


def people_input(tooltip: str, *, optional: bool = False) -> io.Input:
    """Returns the input `cast`, which also takes one identity; `fpga_core.identity.cast.as_cast` reads it."""
    return io.MultiType.Input("cast", types=[CastSocket, IdentitySocket], optional=optional, tooltip=tooltip)


DrawingSocket = io.Custom("FPGA_DRAWING")
"""The canvas of Make Cast, a widget: what `fpga_core.identity.drawing.read_drawing` reads."""

ScoresSocket = io.Custom("FPGA_SCORES")
"""A `fpga_core.evaluation.scores.PictureScores`."""

PoseKeypointSocket = io.Custom("POSE_KEYPOINT")
FaceLandmarksSocket = io.Custom("FACE_LANDMARKS")

AttentionRecordSocket = io.Custom("FPGA_ATTENTION_RECORD")
"""An `fpga_core.patching.cast.record.AttentionRecord`."""

InversionSocket = io.Custom("FPGA_INVERSION")
"""A `fpga_core.patching.restoration.samplers.Inversion`."""

FaceCropsSocket = io.Custom("FPGA_FACE_CROPS")
"""A tuple of `fpga_core.restoration.face_crops.FaceCrop`."""

FaceParserSocket = io.Custom("FPGA_FACE_PARSER")
"""A `fpga_core.faces.parsing.FaceParsingNetwork`, or any callable that maps crops to a mask of the face in each."""

LossMapSocket = io.Custom("LOSS_MAP")
"""A dict of lists of losses, `{"loss": [...]}`, as ComfyUI's own training nodes return it."""
