"""The small world's shipped files, and how the development tools load them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINT = WEIGHTS / "small_world.safetensors"
BRANCH = WEIGHTS / "small_world_repcontrolnet.safetensors"
IDENTITY_ADAPTER = WEIGHTS / "small_world_identity.safetensors"
FACE_PACK = WEIGHTS / "small_world_faces"
RECOGNISER = FACE_PACK / "rec_world.onnx"
READER = WEIGHTS / "small_world_reader.onnx"
COMFYUI_NODE = Path(__file__).parent / "comfyui_node"


def load_checkpoint(file: Path = CHECKPOINT) -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Loads the model, the text encoder and the autoencoder with ComfyUI's own loader."""
    import comfy.sd

    importlib.import_module(".comfyui_node", __package__)  # registers the architecture
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(file))
    return model, clip, vae
