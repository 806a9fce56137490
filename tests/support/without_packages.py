"""A program: loads the nodes where OpenCV, insightface, ONNX Runtime and SciPy cannot be imported, and runs some.

Prints one line of JSON: the number of nodes, and what each run gave: "ran", or the name and text of its error.
"""

import builtins
import json
import runpy
import sys
from pathlib import Path

launch = runpy.run_path(str(Path(__file__).resolve().parents[2] / "devtools" / "launch.py"))
launch["register_pack"]()

from fpga.commands.comfyui import import_comfyui  # noqa: E402

import_comfyui()
for name in ("cv2", "insightface", "onnxruntime"):
    sys.modules[name] = None

real_import = builtins.__import__


def without_scipy(name, importer=None, *args, **kwargs):
    """SciPy is missing for the pack only: ComfyUI itself needs it."""
    if name.partition(".")[0] == "scipy" and importer and importer["__name__"].startswith("fpga."):
        raise ModuleNotFoundError(f"No module named '{name}'")
    return real_import(name, importer, *args, **kwargs)


builtins.__import__ = without_scipy

import numpy as np  # noqa: E402
import torch  # noqa: E402
from fpga.fpga_core.faces.face import Face, PictureFaces  # noqa: E402
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack  # noqa: E402
from fpga.fpga_core.faces.likeness import best_assignment  # noqa: E402
from fpga.fpga_core.geometry import Box  # noqa: E402
from fpga.fpga_core.shapes import Extent  # noqa: E402
from fpga.nodes import NODES  # noqa: E402
from fpga.nodes.faces import DetectFaces, DrawLandmarks  # noqa: E402

points = np.random.default_rng(0).uniform(8, 56, (68, 2))
faces = (PictureFaces(Extent(64, 64), (Face(Box(8, 8, 56, 56), landmarks=points),)),)
person = {"face_keypoints_2d": np.column_stack([points, np.ones(68)]).ravel().tolist()}
pose = {"canvas_width": 64, "canvas_height": 64, "people": [person]}
picture = torch.zeros(1, 64, 64, 3)


def outcome(run):
    try:
        run()
    except Exception as error:  # noqa: BLE001 - what is raised is the outcome
        return f"{type(error).__name__}: {error}"
    return "ran"


runs = {
    "Draw Landmarks": lambda: DrawLandmarks.execute("face", "openpose", 0, 0, 1.0, 0.3, faces=faces),
    "Detect Faces": lambda: DetectFaces.execute(picture, "detector", 0, pose_keypoints=[pose]),
    "an assignment": lambda: best_assignment(np.eye(2)),
    "a face analysis": lambda: load_insightface_pack(Path("no_pack")),
}
report = {"num_nodes": len(NODES), "outcomes": {name: outcome(run) for name, run in runs.items()}}
sys.stdout.write(json.dumps(report) + "\n")
