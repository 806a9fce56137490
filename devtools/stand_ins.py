"""Local stand-ins for the public files that the shipped workflows name, so that tests and the demo run the same graphs.

Each is written under the public file's name into the models folder of a server that only tests or the demo use, so that
the workflows stay unchanged. Their weights are random (seeded) unless stated otherwise. docs/stand-ins.md lists them.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from ..commands.comfyui import import_comfyui
from .launch import ROOT, register_pack

SUPPORT = ROOT / "tests" / "support"
SMALL_WORLD = ROOT / "laboratory"
PACKS = {
    "fpga-stand-in-sd": SUPPORT / "stand_ins" / "small_sd",
    "fpga-stand-in-transformers": SUPPORT / "stand_ins" / "small_transformers",
    "fpga-small-world": SMALL_WORLD / "comfyui_node",
}
"""The custom nodes that a server needs, besides the pack, to load the stand-ins and the small world's models."""


def small_checkpoint(path: Path) -> None:
    """Makes a small SD1.5 checkpoint with UNet, text encoder and autoencoder of `tests/support/stand_ins/small_sd`."""
    import comfy.model_base
    import comfy.taesd.taesd
    import torch
    from fpga.fpga_core.checkpoints import write_safetensors
    from fpga.laboratory.checkpoint_file import checkpoint_tensors
    from tiny_models import fill_random

    small_sd = load_small_sd()
    model = comfy.model_base.BaseModel(small_sd.SmallSD15(small_unet_config(small_sd)))
    text = small_sd.SmallTextModel(dtype=torch.float32).transformer.text_model
    torch.manual_seed(0)
    autoencoder = comfy.taesd.taesd.TAESD()
    for module in (model.diffusion_model, text):
        fill_random(module, seed=0)
    for layer in autoencoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.Conv2d.reset_parameters(layer)  # ComfyUI's layers leave it out
    centre_output(autoencoder.taesd_decoder)
    tensors = checkpoint_tensors(unet=model.diffusion_model, text_model=text, autoencoder=autoencoder)
    write_safetensors(path, tensors, {})


def centre_output(decoder, latent_channels: int = 4) -> None:
    """Scales the last layer so that a random decoder gives mid-tones instead of black and white."""
    import torch

    with torch.no_grad():
        painted = decoder(torch.randn(4, latent_channels, 16, 16))
        decoder[-1].weight *= 0.2 / painted.std()
        decoder[-1].bias.fill_(0.5)


def small_repcontrolnet(path: Path) -> None:
    """Makes a RepControlNet for the small checkpoint."""
    import comfy.model_base
    from fpga.fpga_core.repcontrolnet.export import write_repcontrolnet
    from random_branches import random_branch
    from tiny_models import fill_random

    small_sd = load_small_sd()
    unet = comfy.model_base.BaseModel(small_sd.SmallSD15(small_unet_config(small_sd))).diffusion_model
    fill_random(unet, seed=0)
    write_repcontrolnet(random_branch(unet, scale=0.1), path)


def small_network(name: str, seed: int = 0) -> Callable[[Path], None]:
    """Makes a transformer of the host's class; the name is one of `tests/support/small_transformers.NETWORKS`."""

    def write(path: Path) -> None:
        from fpga.fpga_core.checkpoints import write_safetensors
        from small_transformers import small_transformer

        network = small_transformer(name, seed)
        write_safetensors(path, {key: value.half() for key, value in network.state_dict().items()}, {})

    return write


def small_lora(name: str) -> Callable[[Path], None]:
    """Makes a LoRA of rank 2 for all linear layers of such a transformer."""

    def write(path: Path) -> None:
        import torch
        from fpga.fpga_core.checkpoints import write_safetensors
        from small_transformers import small_transformer
        from tiny_loras import random_lora

        lora = random_lora(small_transformer(name), seed=5)
        write_safetensors(path, {key: torch.as_tensor(value).half() for key, value in lora.items()}, {})

    return write


def small_text_encoder(path: Path) -> None:
    """Makes a Qwen3 for the small transformers, with the vocabulary of the large one."""
    import torch
    from fpga.fpga_core.checkpoints import write_safetensors
    from small_transformers import small_qwen3

    write_safetensors(path, {key: value.to(torch.float16) for key, value in small_qwen3().state_dict().items()}, {})


def small_autoencoder(path: Path) -> None:
    """Makes an autoencoder of 16 channels and 8 pixels to a latent pixel, as FLUX.1's, in TAESD's layout."""
    import comfy.taesd.taesd
    import torch
    from fpga.fpga_core.checkpoints import write_safetensors

    torch.manual_seed(0)
    autoencoder = comfy.taesd.taesd.TAESD(latent_channels=16)
    for layer in autoencoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.Conv2d.reset_parameters(layer)
    centre_output(autoencoder.taesd_decoder, latent_channels=16)
    write_safetensors(path, autoencoder.state_dict(), {})


def small_flux2_autoencoder(path: Path) -> None:
    """Makes an autoencoder of FLUX.2's class, with 16 pixels to a latent pixel. Its encoder's width is fixed."""
    from fpga.fpga_core.checkpoints import write_safetensors
    from small_transformers import flux2_autoencoder

    write_safetensors(path, {key: value.half() for key, value in flux2_autoencoder().state_dict().items()}, {})


def load_small_sd():  # noqa: ANN201 - a module
    """Imports the custom node of the small architecture as ComfyUI does."""
    spec = importlib.util.spec_from_file_location("small_sd", SUPPORT / "stand_ins" / "small_sd" / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError("the small architecture's custom node cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_unet_config(small_sd) -> dict:  # noqa: ANN001
    from unet_configs import SD15_UNET

    return {**SD15_UNET, "model_channels": small_sd.MODEL_CHANNELS, "num_heads": 1}


def small_controlnet(path: Path) -> None:
    """Makes an ordinary ControlNet for the small checkpoint, in the layout of the published files."""
    import comfy.cldm.cldm
    import comfy.ops
    import torch
    from fpga.fpga_core.checkpoints import write_safetensors
    from tiny_models import fill_random

    config = small_unet_config(load_small_sd())
    config = {key: value for key, value in config.items() if key not in ("out_channels", "transformer_depth_output")}
    network = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    fill_random(network, seed=1)
    write_safetensors(path, {f"control_model.{k}": v.half() * 0.5 for k, v in network.state_dict().items()}, {})


def small_faceid(path: Path) -> None:
    """Makes an IP-Adapter FaceID for the small checkpoint, in the public file's nested layout."""
    import torch
    from random_adapters import faceid

    torch.save(faceid("small_sd", lora_rank=8, dtype=torch.float16), path)


def face_analysis_pack(folder: Path) -> None:
    """Makes a detector with MTCNN's trained weights and a simple recogniser, in insightface's own layout."""
    from onnx_pack import build_pack

    build_pack(folder)


def small_restoreformer(path: Path) -> None:
    """Makes a face restorer in RestoreFormer's published layout that takes only a second per face on a CPU."""
    import torch
    from spandrel.architectures.RestoreFormer import RestoreFormer

    torch.manual_seed(0)
    network = RestoreFormer(
        n_embed=64, embed_dim=32, ch=32, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1, z_channels=32
    )
    torch.save({"params": network.state_dict()}, path)


def cut_from_group_photo(box: tuple[int, int, int, int], size: tuple[int, int] | None = None) -> Callable[[Path], None]:
    """Crops insightface's own test picture, a group of six people; the box is (left, top, right, bottom)."""

    def write(path: Path) -> None:
        from PIL import Image

        with importlib.resources.files("insightface").joinpath("data/images/t1.jpg").open("rb") as file:
            part = Image.open(file).crop(box)
            part.resize(size or part.size).save(path)

    return write


def portrait_photo(path: Path) -> None:
    """Returns scikit-image's portrait of the astronaut Eileen Collins (NASA, public domain)."""
    import skimage.data
    from PIL import Image

    Image.fromarray(skimage.data.astronaut()).save(path)


def masked_drawing(path: Path) -> None:
    """Draws the portrait in flat colours with outlines. Its face is transparent, as ComfyUI's mask editor leaves it."""
    import skimage.data
    from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

    flat = ImageOps.posterize(Image.fromarray(skimage.data.astronaut()).filter(ImageFilter.ModeFilter(9)), 3)
    outlines = ImageOps.invert(flat.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")
    drawing = ImageChops.multiply(flat, outlines).resize((320, 320))
    visible = Image.new("L", drawing.size, 255)
    ImageDraw.Draw(visible).ellipse((105, 38, 172, 122), fill=0)
    drawing.putalpha(visible)
    drawing.save(path)


STAND_INS: dict[str, Callable[[Path], None]] = {
    "models/checkpoints/v1-5-pruned-emaonly-fp16.safetensors": small_checkpoint,
    "models/controlnet/fpga_repcontrolnet_sd15.safetensors": small_repcontrolnet,
    "models/controlnet/control_v11p_sd15_openpose_fp16.safetensors": small_controlnet,
    "models/ipadapter/ip-adapter-faceid_sd15.bin": small_faceid,
    "models/insightface/models/buffalo_l": face_analysis_pack,
    "models/upscale_models/RestoreFormer.pth": small_restoreformer,
    "models/diffusion_models/flux-2-klein-base-4b-fp8.safetensors": small_network("FLUX.2"),
    "models/diffusion_models/z_image_turbo_bf16.safetensors": small_network("Z-Image"),
    "models/text_encoders/qwen_3_4b.safetensors": small_text_encoder,
    "models/vae/flux2-vae.safetensors": small_flux2_autoencoder,
    "models/vae/ae.safetensors": small_autoencoder,
    "models/loras/your_character_z_image.safetensors": small_lora("Z-Image"),
    "input/group_photo.png": cut_from_group_photo((0, 0, 1280, 886)),
    "input/small_group_photo.png": cut_from_group_photo((16, 0, 1264, 832), size=(576, 384)),
    "input/group_of_three.png": cut_from_group_photo((640, 0, 1280, 640)),
    "input/person_1.png": cut_from_group_photo((0, 180, 260, 480)),
    "input/person_2.png": cut_from_group_photo((200, 90, 430, 350)),
    "input/person_3.png": cut_from_group_photo((400, 190, 640, 480)),
    "input/portrait_photo.png": portrait_photo,
    "input/drawing_with_masked_face.png": masked_drawing,
}
"""Public file, inside the server's base directory -> function that writes its stand-in."""


WORLD_FILES = {
    "models/checkpoints/small_world.safetensors": SMALL_WORLD / "weights" / "small_world.safetensors",
    "models/controlnet/small_world_repcontrolnet.safetensors": SMALL_WORLD
    / "weights"
    / "small_world_repcontrolnet.safetensors",
    "models/ipadapter/small_world_identity.safetensors": SMALL_WORLD / "weights" / "small_world_identity.safetensors",
    "models/insightface/models/small_world_faces": SMALL_WORLD / "weights" / "small_world_faces",
}
"""The small world's trained models, under their own names."""


def place_world(base_directory: Path) -> None:
    """Copies the small world's models that have changed."""
    for name, source in WORLD_FILES.items():
        for file in source.glob("*") if source.is_dir() else (source,):
            target = base_directory / name / file.relative_to(source)
            if not target.exists() or target.stat().st_mtime < file.stat().st_mtime:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)


def place_stand_ins(base_directory: Path) -> None:
    """Writes every stand-in that does not exist yet, and copies the small world's models beside them."""
    place_world(base_directory)
    register_pack()
    import_comfyui()
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    for name, write in STAND_INS.items():
        path = base_directory / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
