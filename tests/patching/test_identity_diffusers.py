"""The public adapters on a tiny UNet against diffusers, which loads the same file with its own loader.

benches/identity_reference.py does the same with SD1.5's full shapes.
"""

import pytest
import torch
from diffusers_reference import comfyui_output, diffusers_output, load_adapter, same_unet
from eq1_reference import relative_error
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.adapter_layouts import Variant
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.shapes import Extent
from random_adapters import BUFFALO_L, faceid, faceid_plus, plus_face, random_identity, read_adapter
from tiny_models import conditioning, tiny_model

CLIP = "a ViT"
READS = {
    "faceid": (lambda: faceid("tiny", lora_rank=3), Variant.AUTO, BUFFALO_L, None),
    "faceid-plus": (lambda: faceid_plus("tiny", lora_rank=3), Variant.PLUS_V1, BUFFALO_L, CLIP),
    "faceid-plusv2": (lambda: faceid_plus("tiny", lora_rank=3), Variant.PLUS_V2, BUFFALO_L, CLIP),
    "plus-face": (lambda: plus_face("tiny"), Variant.AUTO, None, CLIP),
}
# 16x16 cells, three levels: edges on the coarsest grid's, where diffusers' bicubic masks are exact too
BOXES = (Box(0.0, 0.25, 0.25, 0.75), Box(0.5, 0.0, 1.0, 0.5))


def face(seed):
    return random_identity(f"person {seed}", seed=seed, clip={CLIP: 48})


@pytest.mark.parametrize("timestep", [900, 20])
@pytest.mark.parametrize("null", [False, True], ids=["positive", "negative"])
@pytest.mark.parametrize("num_people", [1, 2], ids=["one in the whole picture", "two in regions"])
@pytest.mark.parametrize("kind", READS)
def test_unet_output_equals_diffusers(kind, num_people, null, timestep):
    make_file, variant, recogniser, clip = READS[kind]
    file, model, text = make_file(), tiny_model(), conditioning(1)
    faces = [face(seed) for seed in range(num_people)]
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(6))
    masks, regions = None, [None]
    if num_people > 1:
        regions = [Region.from_box(box) for box in BOXES]
        masks = torch.stack([region.rasterise(Extent(128, 128)) for region in regions])
    unet = same_unet(model, "tiny")
    torch.testing.assert_close(
        comfyui_output(model, text, latent, timestep), unet(latent, timestep, text[0][0].expand(2, -1, -1)).sample
    )
    load_adapter(unet, file, shortcut=variant is not Variant.PLUS_V1)
    expected = diffusers_output(unet, latent, timestep, text[0][0], faces, recogniser, clip, masks, null)
    people = Cast(
        tuple(CastMember(face, region) for face, region in zip(faces, regions, strict=True)), Extent(128, 128)
    )
    adapter = read_adapter(file, variant=variant)
    patched, positive, negative = apply_cast(model, text, text, adapter=adapter, cast=people)
    actual = comfyui_output(patched, negative if null else positive, latent, timestep)
    assert relative_error(actual, expected) < 1e-4
    assert relative_error(comfyui_output(model, text, latent, timestep), expected) > 1e-2
