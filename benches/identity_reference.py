"""Public identity adapters on a full-size SD1.5 in float32, compared with Eq. 1 as hooks and with diffusers.

The bench uses random weights in the exact public key layouts, and one call of the UNet at 512x512. diffusers loads the
same file with its own loader, including the LoRA inside a FaceID file. The relative error is that of the UNet's output.
"""

import torch
from _models import random_model
from _report import arguments, report
from diffusers_reference import comfyui_output, diffusers_output, load_adapter, same_unet
from eq1_reference import carried, eq1_on, low_rank_on, relative_error
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.adapter_layouts import Variant
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.shapes import Extent
from random_adapters import ARCHITECTURES, BUFFALO_L, faceid, faceid_plus, plus_face, random_identity, read_adapter
from tiny_models import tiny_model
from unet_configs import SD15_UNET

CLIP = "a ViT"
ADAPTERS = {
    "FaceID": (faceid, Variant.AUTO, BUFFALO_L, None),
    "FaceID-Plus": (faceid_plus, Variant.PLUS_V1, BUFFALO_L, CLIP),
    "FaceID-PlusV2": (faceid_plus, Variant.PLUS_V2, BUFFALO_L, CLIP),
    "plus-face": (plus_face, Variant.AUTO, None, CLIP),
}
# The edges are on the grid of the coarsest layer, where diffusers' bicubic masks are exact
BOXES = (Box(0.0, 0.25, 0.25, 0.75), Box(0.5, 0.0, 1.0, 0.5))
TIMESTEP = 500


def regions(num_people: int, picture: Extent) -> tuple[list[Region | None], torch.Tensor | None]:
    """Returns the people's regions in the forms of the pack and of diffusers; a single person has the whole picture."""
    if num_people == 1:
        return [None], None
    placed = [Region.from_box(box) for box in BOXES]
    return placed, torch.stack([region.rasterise(picture) for region in placed])


def measure(model, unet, architecture: str, what: str, num_people: int, latent: torch.Tensor, text: list) -> dict:
    make_file, variant, recogniser, clip = ADAPTERS[what]
    file = make_file(architecture)
    adapter = read_adapter(file, variant=variant)
    size = Extent(latent.shape[-1], latent.shape[-2])
    placed, masks = regions(num_people, Extent(8 * size.width, 8 * size.height))
    faces = [
        random_identity(f"person {seed}", seed=seed, clip={CLIP: ARCHITECTURES[architecture].clip_dim})
        for seed in range(num_people)
    ]
    people = Cast(tuple(map(CastMember, faces, placed)), Extent(8 * size.width, 8 * size.height))
    patched, positive, _ = apply_cast(model, text, text, adapter=adapter, cast=people)
    actual = comfyui_output(patched, positive, latent, TIMESTEP)
    untouched = comfyui_output(model, text, latent, TIMESTEP)
    network = model.model.diffusion_model
    with eq1_on(network, [carried(text, adapter, people, size)]), low_rank_on(network, adapter.lora):
        formula = comfyui_output(model, text, latent, TIMESTEP)
    load_adapter(unet, file, shortcut=variant is not Variant.PLUS_V1)
    theirs = diffusers_output(unet, latent, TIMESTEP, text[0][0], faces, recogniser, clip, masks)
    if adapter.lora:
        unet.unload_lora()
    return {
        "adapter": what,
        "people": "one, whole picture" if num_people == 1 else f"{num_people}, in regions",
        "error to Eq. 1": f"{relative_error(actual, formula):.1e}",
        "error to diffusers": f"{relative_error(actual, theirs):.1e}",
        "what the identities change": f"{relative_error(untouched, theirs):.1e}",
    }


@torch.no_grad()
def main() -> None:
    options = arguments(__doc__)
    architecture = "tiny" if options.tiny else "sd15"
    model = tiny_model() if options.tiny else random_model(SD15_UNET, torch.float32)
    size, width = (16, 64) if options.tiny else (64, 768)
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 4, size, size, generator=generator)
    text = [[torch.randn(1, 77, width, generator=generator), {}]]
    unet = same_unet(model, architecture)
    rows = [
        measure(model, unet, architecture, what, num_people, latent, text) for what in ADAPTERS for num_people in (1, 2)
    ]
    report(f"One UNet call, {architecture}, {8 * size}x{8 * size}, float32", rows, options.json)


if __name__ == "__main__":
    main()
