"""The contents of `dev.py demo`: shipped workflows with the small world's models, people and poses.

These replace the files and photographs that the workflows name. docs/stand-ins.md lists the replacements.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..laboratory.gallery import SIZE_PX
from ..laboratory.painter import paint
from ..laboratory.recogniser import NUM_PEOPLE, person_number
from ..laboratory.scenes import Scene, Shot, random_scene
from .client import Prompt, api_node

NAMES = {
    "v1-5-pruned-emaonly-fp16.safetensors": "small_world.safetensors",
    "fpga_repcontrolnet_sd15.safetensors": "small_world_repcontrolnet.safetensors",
    "ip-adapter-faceid_sd15.bin": "small_world_identity.safetensors",
    "buffalo_l": "small_world_faces",
}
"""Public file -> file of the small world."""

CANVAS = {"width": SIZE_PX, "height": SIZE_PX}
CFG = 2.5
WIDGETS: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": CANVAS,
    "FPGA_LoadFaceAnalysis": {"download_if_missing": False},
    "FPGA_MakeCast": CANVAS,
    "FPGA_DrawLandmarks": {**CANVAS, "style": "openpose"},
    "KSampler": {"cfg": CFG},
    "FPGA_RestoreFaces": {"cfg": CFG, "crop_size_px": SIZE_PX},
}
"""Settings for the size of the world: pictures of 128 pixels, weak guidance, and landmarks as in its branch's training.
"""


@dataclass(frozen=True)
class Run:
    """One run of one workflow.

    Attributes:
        workflow: its file in workflows/api, or a graph of stock nodes whose result the next run reads.
        inputs: title of a node -> inputs to set.
        shown: title of a node whose pictures go on the sheet -> start of their caption, before the FaceSim.
        kept_as: name of the input file that the saved picture becomes.
    """

    workflow: str | Prompt
    inputs: Mapping[str, Mapping[str, Any]]
    shown: Mapping[str, str]
    kept_as: str | None = None


@dataclass(frozen=True)
class Row:
    """One row of the sheet.

    Attributes:
        title: what it shows.
        photos: input file -> caption.
        runs: the runs.
    """

    title: str
    photos: Mapping[str, str]
    runs: tuple[Run, ...] = field(default=())


ANNA, BEA, CARL, MODEL = (person_number(NUM_PEOPLE + number) for number in (3, 9, 11, 20))
"""Held-out people; the last one is used for the poses."""


def pose(number: int, shot: Shot) -> Scene:
    rng = np.random.default_rng((11, number))
    return random_scene(rng, shot, (MODEL,) * shot.num_people)


POSES = {f"pose_{number}.png": pose(number, Shot.HALF) for number in range(1, 5)}
GROUP, GROUP_2 = pose(5, Shot.TRIO), pose(6, Shot.TRIO)
WALK = random_scene(np.random.default_rng((11, 13)), Shot.FULL, (ANNA,))
SWAP = random_scene(np.random.default_rng(13), Shot.HALF, (CARL,))
SCENES = {**POSES, "group.png": GROUP, "group_2.png": GROUP_2}
PHOTOS = {"anna.png": ANNA, "bea.png": BEA, "carl.png": CARL}
PAINTED_PX = 512


def write_pictures(folder: Path) -> None:
    """Paints the photos and poses that the workflows load."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, person) in enumerate(PHOTOS.items()):
        scene = random_scene(np.random.default_rng((12, number)), Shot.CLOSE, (person,))
        Image.fromarray(paint(scene, PAINTED_PX)).save(folder / name)
    for name, scene in SCENES.items():
        Image.fromarray(paint(scene, PAINTED_PX)).save(folder / name)
    Image.fromarray(paint(WALK, SIZE_PX)).save(folder / "anna_full_body.png")
    Image.fromarray(paint(SWAP, PAINTED_PX // 2)).save(folder / "carl_half_body.png")


THROUGH_AUTOENCODER: Prompt = {
    "1": api_node("CheckpointLoaderSimple", ckpt_name="small_world.safetensors"),
    "2": api_node("LoadImage", image="anna_full_body.png"),
    "3": api_node("VAEEncode", pixels=["2", 0], vae=["1", 2]),
    "4": api_node("VAEDecode", samples=["3", 0], vae=["1", 2]),
    "5": api_node("SaveImage", "Save Image", images=["4", 0], filename_prefix="world/broken"),
}
"""A graph that breaks small faces as in every generated picture: the autoencoder has few latent pixels for them."""


def prompts(scene: Scene) -> dict[str, Mapping[str, Any]]:
    return {"Positive": {"text": scene.caption}, "Negative": {"text": ""}}


ROWS = (
    Row(
        "One person in four poses",
        {"anna.png": "photo of Anna"},
        tuple(
            Run(
                "posed_identity",
                {
                    **prompts(scene),
                    "Photo of the person": {"image": "anna.png"},
                    "Encode Identity": {"name": "Anna"},
                    "Pose picture": {"image": name},
                },
                {"Likeness": ""},
            )
            for name, scene in POSES.items()
        ),
    ),
    Row(
        "A cast of three, each in their place",
        {"anna.png": "Anna", "bea.png": "Bea", "carl.png": "Carl"},
        (
            Run(
                "multi_identity_cast",
                {
                    **prompts(GROUP),
                    "Photo of Anna": {"image": "anna.png"},
                    "Photo of Bea": {"image": "bea.png"},
                    "Photo of Carl": {"image": "carl.png"},
                    "Pose photo": {"image": "group.png"},
                },
                {"Likeness": ""},
            ),
        ),
    ),
    Row(
        "A full-body picture with a face that the autoencoder broke, before and after DIIR",
        {"anna.png": "photo of Anna"},
        (
            Run(THROUGH_AUTOENCODER, {}, {"Save Image": "broken"}, kept_as="full_body.png"),
            Run(
                "restore_faces",
                {
                    "Positive": {"text": WALK.caption.replace(Shot.FULL.value, Shot.CLOSE.value)},
                    "Negative": {"text": ""},
                    "Picture with small faces": {"image": "full_body.png"},
                    "Photo of Anna": {"image": "anna.png"},
                    "Photo of Bea": {"image": "bea.png"},
                    "Photo of Carl": {"image": "carl.png"},
                },
                {"Faces before": "before: ", "Faces after": "after: ", "Likeness": "pasted: "},
            ),
        ),
    ),
    Row(
        "A face swap",
        {"carl_half_body.png": "picture of Carl", "bea.png": "photo of Bea"},
        (
            Run(
                "face_swap",
                {
                    "Positive": {"text": SWAP.caption.replace(Shot.HALF.value, Shot.CLOSE.value)},
                    "Negative": {"text": ""},
                    "Picture with the face to replace": {"image": "carl_half_body.png"},
                    "Photo of Bea": {"image": "bea.png"},
                },
                {"Faces before": "before: ", "Faces after": "after: ", "Likeness": "as Bea: "},
            ),
        ),
    ),
)


def adapted(prompt: Prompt, run: Run) -> Prompt:
    """Returns a shipped workflow with the small world's files, sizes and pictures.

    Raises:
        ValueError: the workflow has no node with a title that `run` sets.
    """
    prompt = copy.deepcopy(prompt)
    titles = {node["_meta"]["title"]: node for node in prompt.values()}
    if unknown := run.inputs.keys() - titles.keys():
        raise ValueError(f"'{run.workflow}' has no node called {sorted(unknown)}; it has {sorted(titles)}")
    for node_id, node in prompt.items():
        node["inputs"] |= WIDGETS.get(node["class_type"], {})
        node["inputs"] |= {
            name: NAMES[value] for name, value in node["inputs"].items() if isinstance(value, str) and value in NAMES
        }
        if "control_net" in node["inputs"]:
            _use_repcontrolnet(prompt, node_id)
    for title, inputs in run.inputs.items():
        titles[title]["inputs"] |= inputs
    return prompt


def _use_repcontrolnet(prompt: Prompt, node_id: str) -> None:
    """Puts the world's RepControlNet in the place of a ControlNet, which the world does not have.

    Restore Faces takes either. Apply ControlNet becomes Apply RepControlNet, which the model passes through as well.
    """
    inputs = prompt[node_id]["inputs"]
    loader = inputs.pop("control_net")[0]
    branch = {"name": "small_world_repcontrolnet.safetensors"}
    prompt[loader] |= {"class_type": "FPGA_LoadRepControlNet", "inputs": branch}
    inputs["repcontrolnet"] = [loader, 0]
    if prompt[node_id]["class_type"] == "ControlNetApplyAdvanced":
        prompt[node_id]["class_type"] = "FPGA_ApplyRepControlNet"
        (after,) = (node["inputs"] for node in prompt.values() if node["inputs"].get("positive") == [node_id, 0])
        inputs["model"] = after["model"]
        after |= {"model": [node_id, 0], "positive": [node_id, 1], "negative": [node_id, 2]}
