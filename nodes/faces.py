"""Face nodes: find faces in pictures, and draw condition images from them."""

from comfy_api.v0_0_2 import io

from ..fpga_core.faces.detection import SOURCES, as_pictures, detect_faces, source_problem
from ..fpga_core.faces.drawing import DrawnParts, FaceStyle, draw_conditions
from ..fpga_core.faces.keypoint_formats import faces_and_bodies
from ..fpga_core.faces.ordering import FaceOrder
from ..fpga_core.faces.preview import bounding_boxes, draw_numbers, face_masks
from .sockets import FaceAnalysisSocket, FaceLandmarksSocket, FacesSocket, PoseKeypointSocket

CATEGORY = "FPGA Portrait/faces"


class DetectFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_DetectFaces",
            display_name="Detect Faces",
            category=CATEGORY,
            description=(
                "Finds the faces in each picture. Connect one of three sources: a face analysis, ComfyUI's MediaPipe "
                "landmarks, or poses from SDPose, OpenPose or DWPose."
            ),
            search_aliases=[
                "face detection",
                "find faces",
                "face boxes",
                "face mask",
                "landmarks",
                "insightface",
                "fpga",
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The pictures to search, one or a batch, of any size. A face analysis also searches pictures "
                        "over 1,920 pixels in overlapping tiles, so that small faces are found. Finding faces in 4,096 "
                        "pixels takes 17 times as long as in 1,920."
                    ),
                ),
                FaceAnalysisSocket.Input(
                    "face_analysis",
                    optional=True,
                    tooltip="The face detector, from Load Face Analysis. Connect exactly one of the three sources.",
                ),
                FaceLandmarksSocket.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="Landmarks from Detect Face Landmarks (MediaPipe), found in the same pictures.",
                ),
                PoseKeypointSocket.Input(
                    "pose_keypoints",
                    optional=True,
                    tooltip=(
                        "Keypoints from SDPose, OpenPose or DWPose, found in the same pictures. They bring the bodies "
                        "along with the faces."
                    ),
                ),
                io.Combo.Input(
                    "order",
                    options=FaceOrder,
                    default=FaceOrder.LARGEST_FIRST,
                    tooltip="The order in which the faces of each picture are listed and numbered.",
                ),
                io.Int.Input(
                    "min_size_px",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip="Faces whose longer side is shorter than this are left out. 0 keeps every face.",
                ),
            ],
            outputs=[
                FacesSocket.Output(
                    display_name="faces", tooltip="The faces of each picture: boxes, landmarks and embeddings."
                ),
                io.BoundingBox.Output(
                    display_name="boxes",
                    tooltip=(
                        "One list of boxes per picture, for nodes such as SDPose, SAM, Crop By Bounding Boxes and Draw "
                        "BBoxes."
                    ),
                ),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="One mask per face in the whole batch, or one empty mask if there are no faces.",
                ),
                io.Image.Output(display_name="preview", tooltip="The pictures with a numbered box around each face."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, face_analysis=False, face_landmarks=False, pose_keypoints=False) -> bool | str:
        # ComfyUI passes None for a connected input, and leaves the default for an unconnected one. It calls this
        # function only if one of the named inputs is present, so `image`, which always is, is among them.
        given = zip(SOURCES, (face_analysis, face_landmarks, pose_keypoints), strict=True)
        return source_problem([name for name, value in given if value is None]) or True

    @classmethod
    def execute(
        cls, image, order, min_size_px, face_analysis=None, face_landmarks=None, pose_keypoints=None
    ) -> io.NodeOutput:
        pictures = as_pictures(image)
        found = detect_faces(
            pictures,
            face_analysis,
            face_landmarks=face_landmarks,
            pose_keypoints=pose_keypoints,
            order=FaceOrder(order),
            min_size_px=min_size_px,
        )
        return io.NodeOutput(found, bounding_boxes(found), face_masks(found), draw_numbers(pictures, found))


class DrawLandmarks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_DrawLandmarks",
            display_name="Draw Landmarks",
            category=CATEGORY,
            description=(
                "Draws a condition image for a ControlNet or RepControlNet: face landmarks, body skeletons, or both."
            ),
            search_aliases=[
                "landmark image",
                "openpose",
                "skeleton",
                "keypoints",
                "instantid",
                "condition image",
                "fpga",
            ],
            inputs=[
                FacesSocket.Input(
                    "faces",
                    optional=True,
                    tooltip=(
                        "Faces from Detect Faces. They include bodies if they were found by pose. Connect these, a "
                        "skeleton, or both."
                    ),
                ),
                PoseKeypointSocket.Input(
                    "skeleton",
                    optional=True,
                    tooltip=(
                        "Bodies from Make Cast, SDPose, OpenPose or DWPose, drawn in place of those that came with the "
                        "faces."
                    ),
                ),
                io.Combo.Input(
                    "what",
                    options=DrawnParts,
                    default=DrawnParts.FACE,
                    tooltip=(
                        "What to draw. Choose what your network was trained on; the last training stage of the FPGA "
                        "paper uses face and body in one picture."
                    ),
                ),
                io.Combo.Input(
                    "style",
                    options=FaceStyle,
                    default=FaceStyle.OPENPOSE,
                    tooltip=(
                        "How to draw faces. Choose the style that your ControlNet was trained on. openpose: a white "
                        "dot per landmark. curves: coloured lines for jaw, brows, nose, eyes and mouth. instantid: "
                        "five coloured dots."
                    ),
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip=(
                        "Width of the drawing in pixels; the pose is stretched to fit. 0 keeps the picture's aspect "
                        "ratio, or its size if height is also 0."
                    ),
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip=(
                        "Height of the drawing in pixels; the pose is stretched to fit. 0 keeps the picture's aspect "
                        "ratio, or its size if width is also 0."
                    ),
                ),
                io.Float.Input(
                    "line_width",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.1,
                    tooltip=(
                        "Scales the widths of lines and dots. 1 gives the widths that ControlNets were trained on; "
                        "they grow with the size of the picture."
                    ),
                ),
                io.Float.Input(
                    "min_confidence",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Body keypoints with a lower confidence are left out. Raise it if stray limbs appear.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="One condition image per picture, on a black background.")
            ],
        )

    @classmethod
    def execute(
        cls, what, style, width, height, line_width, min_confidence, faces=None, skeleton=None
    ) -> io.NodeOutput:
        pictures = faces_and_bodies(faces, skeleton)
        drawn = draw_conditions(
            pictures,
            DrawnParts(what),
            FaceStyle(style),
            width=width,
            height=height,
            line_width=line_width,
            min_confidence=min_confidence,
        )
        return io.NodeOutput(drawn)


NODES: list[type[io.ComfyNode]] = [DetectFaces, DrawLandmarks]
