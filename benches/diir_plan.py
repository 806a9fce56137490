"""What an inversion keeps of one face, planned for full-size models of every family without running them."""

import comfy.ops
import torch
from _report import arguments, report
from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from comfy.ldm.krea2.model import SingleStreamDiT
from comfy.ldm.lens.model import LensTransformer2DModel
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.mage_flow.model import MageFlowTransformer2DModel
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from fpga.fpga_core.patching.families import FAMILIES
from fpga.fpga_core.restoration.feature_cache import CacheMode, CachePlan
from fpga.fpga_core.restoration.settings import RestoreSettings
from fpga.fpga_core.shapes import Extent
from tiny_transformers import CHROMA, FLUX, FLUX2, SD3, Z_IMAGE
from unet_configs import SD15_UNET

FLUX_SIZE = {"hidden_size": 3072, "num_heads": 24, "depth": 19, "depth_single_blocks": 38, "axes_dim": [16, 56, 56]}
FLUX2_SIZE = {"hidden_size": 6144, "num_heads": 48, "depth": 8, "depth_single_blocks": 48, "axes_dim": [32] * 4}
SIZES = {
    "SD1.5": (UNetModel, SD15_UNET, 512, 8, 4),
    "SD3.5 medium": (
        OpenAISignatureMMDITWrapper,
        {**SD3, "depth": 24, "x_block_self_attn_layers": list(range(13))},
        1024,
        8,
        16,
    ),
    "SD3.5 large": (OpenAISignatureMMDITWrapper, {**SD3, "depth": 38, "x_block_self_attn_layers": []}, 1024, 8, 16),
    "FLUX.1": (Flux, {**FLUX, **FLUX_SIZE}, 1024, 8, 16),
    "FLUX.2 dev": (Flux, {**FLUX2, **FLUX2_SIZE}, 1024, 16, 128),
    "Chroma": (Chroma, {**CHROMA, **FLUX_SIZE}, 1024, 8, 16),
    "Qwen-Image": (QwenImageTransformer2DModel, {}, 1328, 8, 16),
    "Mage-Flow": (MageFlowTransformer2DModel, {}, 1024, 16, 128),
    "Lens": (LensTransformer2DModel, {}, 1024, 16, 128),
    "Z-Image": (
        NextDiT,
        {**Z_IMAGE, "dim": 3840, "n_layers": 30, "n_heads": 30, "n_kv_heads": 30, "axes_dims": [32, 48, 48]},
        1024,
        8,
        16,
    ),
    "Lumina 2": (
        NextDiT,
        {**Z_IMAGE, "dim": 2304, "n_layers": 26, "n_heads": 24, "n_kv_heads": 8, "axes_dims": [32, 32, 32]},
        1024,
        8,
        16,
    ),
    "Krea 2": (SingleStreamDiT, {}, 1024, 8, 16),
}
"""The class of the network, its published size, the side of a crop and of a latent pixel, and the latent's channels.
What is not named does not change the plan."""


class MetaModel:
    """A network without memory, as `ModelFamily.layers` reads one."""

    def __init__(self, kind: type, config: dict):
        operations = comfy.ops.disable_weight_init
        self.network = kind(**config, device="meta", dtype=torch.bfloat16, operations=operations)

    def get_model_object(self, name: str) -> torch.nn.Module:
        return self.network


def main() -> None:
    options = arguments(__doc__)
    settings, rows = RestoreSettings(), []
    for name, (kind, config, size_px, latent_px, channels) in SIZES.items():
        side = size_px // latent_px
        layers = FAMILIES[kind].layers(MetaModel(kind, config), Extent(side, side))
        mib = {
            mode.value: CachePlan.of(
                mode,
                layers,
                settings=settings.fusion,
                num_steps=settings.steps,
                latent_shape=(1, channels, side, side),
                sources=settings.fusion.sources,
            ).num_mib
            for mode in (CacheMode.FULL, CacheMode.STATISTICS)
        }
        first = layers[0]
        row = {"model": name, "crop": size_px, "layers": len(layers), "tokens": first.num_tokens}
        rows.append({**row, "channels": first.channels, **{f"{mode} MiB": f"{size:,}" for mode, size in mib.items()}})
    report("One face at the defaults of Restore Faces, 30 steps", rows, options.json)


if __name__ == "__main__":
    main()
