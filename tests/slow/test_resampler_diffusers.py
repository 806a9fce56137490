"""An adapter's tokens, compared with diffusers' own loader and networks on the same files."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from fpga.fpga_core.identity.adapter_layouts import Variant
from published_resamplers import relative_error
from random_adapters import (
    ANTELOPEV2,
    BUFFALO_L,
    faceid,
    faceid_plus,
    faceid_portrait,
    instantid,
    plus_face,
    random_identity,
    read_adapter,
)
from torch.nn.functional import normalize

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def loader():
    """The smallest UNet that has diffusers' IP-Adapter loader."""
    return UNet2DConditionModel(
        block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=768,
        attention_head_dim=4,
    )


def network(loader, file):
    """diffusers' network for the file's `image_proj`."""
    return loader._convert_ip_adapter_image_proj_to_diffusers(file["image_proj"], low_cpu_mem_usage=False)


@torch.no_grad()
def test_faceid(loader):
    file, identity = faceid("sd15", lora_rank=0), random_identity(num_photos=1)
    theirs, adapter = network(loader, file), read_adapter(file)
    assert relative_error(adapter.tokens(identity), theirs(normalize(identity.embeddings[BUFFALO_L]))) < TOLERANCE
    assert relative_error(adapter.null_tokens(identity), theirs(torch.zeros(1, 512))) < TOLERANCE


@torch.no_grad()
def test_faceid_portrait(loader):
    file, identity = faceid_portrait("sd15"), random_identity(num_photos=5)
    theirs = network(loader, file)(normalize(identity.embeddings[BUFFALO_L]))
    assert relative_error(read_adapter(file).tokens(identity), theirs.reshape(1, 80, 768)) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "shortcut", "strength"), [(Variant.PLUS_V1, False, 1.0), (Variant.PLUS_V2, True, 0.7)]
)
def test_faceid_plus(loader, variant, shortcut, strength):
    file, identity = faceid_plus("sd15", lora_rank=0), random_identity(clip={"h": 1280}, clip_tokens=257)
    theirs, adapter = network(loader, file), read_adapter(file, variant=variant, structure_strength=strength)
    theirs.shortcut, theirs.shortcut_scale = shortcut, strength
    theirs.clip_embeds = identity.clip_hidden["h"][None]
    expected = theirs(normalize(identity.embeddings[BUFFALO_L]))
    assert relative_error(adapter.tokens(identity), expected) < TOLERANCE
    theirs.clip_embeds = identity.clip_null["h"][None]
    assert relative_error(adapter.null_tokens(identity), theirs(torch.zeros(1, 512))) < TOLERANCE


@torch.no_grad()
def test_plus_face(loader):
    file, identity = plus_face("sd15"), random_identity(recognisers=(), clip={"h": 1280}, clip_tokens=257)
    theirs, adapter = network(loader, file), read_adapter(file)
    assert relative_error(adapter.tokens(identity), theirs(identity.clip_hidden["h"])) < TOLERANCE
    assert relative_error(adapter.null_tokens(identity), theirs(identity.clip_null["h"])) < TOLERANCE


@torch.no_grad()
def test_instantid(loader):
    file, identity = instantid("tiny"), random_identity(recognisers=(ANTELOPEV2,))
    theirs, adapter = network(loader, file), read_adapter(file)
    assert relative_error(adapter.tokens(identity), theirs(identity.embeddings[ANTELOPEV2][:, None])) < TOLERANCE
    assert relative_error(adapter.null_tokens(identity), theirs(torch.zeros(1, 1, 512))) < TOLERANCE
