"""The workflows that the pack ships, made small enough that a test takes seconds."""

import json
from pathlib import Path

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
NAMES = sorted(file.stem for file in API.glob("*.json"))
SMALLER = {
    "KSampler": {"steps": 3},
    "FPGA_RestoreFaces": {"steps": 2, "repetitions": 0, "crop_size_px": 128},
    "FPGA_CropFaces": {"crop_size_px": 128},
    "FPGA_LoadFaceAnalysis": {"download_if_missing": False},  # the tests use no network
    "FPGA_LoadIdentityAdapter": {"download_if_missing": False},
}
EMPTY_LATENTS = ("EmptyLatentImage", "EmptyFlux2LatentImage")
MODEL_LOADERS = ("CheckpointLoaderSimple", "UNETLoader")
REDUCTION = 2
"""Of the side of generated pictures."""


def as_shipped(name: str) -> dict:
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def smaller(name: str) -> dict:
    """A shipped workflow with fewer steps, smaller pictures and smaller crops."""
    prompt = as_shipped(name)
    for node in prompt.values():
        node["inputs"] |= SMALLER.get(node["class_type"], {})
    for latent in (node_id for kind in EMPTY_LATENTS for node_id in nodes_of(prompt, kind)):
        size = size_inputs(prompt, latent)
        size |= {side: size[side] // REDUCTION for side in ("width", "height")}
    return prompt


def size_inputs(prompt: dict, latent: str) -> dict:
    """The inputs that say how large an empty latent is: its own, or those of the Make Cast that it is connected to."""
    inputs = prompt[latent]["inputs"]
    return prompt[inputs["width"][0]]["inputs"] if isinstance(inputs["width"], list) else inputs


def nodes_of(prompt: dict, class_type: str) -> list[str]:
    return [node_id for node_id, node in prompt.items() if node["class_type"] == class_type]


def node_of(prompt: dict, *class_types: str) -> str:
    """The first node of the first of these types that there is."""
    return next(node_id for class_type in class_types for node_id in nodes_of(prompt, class_type))
