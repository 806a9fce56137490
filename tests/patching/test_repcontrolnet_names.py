"""Real shapes, on the meta device: diffusers' UNets under ComfyUI's names, and what a RepControlNet copies of them."""

import comfy.model_detection
import comfy.ops
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from diffusers import UNet2DConditionModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from fpga.fpga_core.repcontrolnet.branch import BranchHeader, RepControlNet, recognise_base
from fpga.fpga_core.repcontrolnet.diffusers_layout import block_names, convert_diffusers, parameter_name
from fpga.fpga_core.repcontrolnet.folding import check_branch_fits, foldable_parameters
from fpga.fpga_core.repcontrolnet.hint_encoder import HintEncoder, build_hint_encoder

# as published with the models
DOWN_BLOCKS = {
    "sd15": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "sdxl": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
}
UP_BLOCKS = {
    "sd15": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "sdxl": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
UNETS = {
    "sd15": {"cross_attention_dim": 768},
    "sd21": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": DOWN_BLOCKS["sdxl"],
        "up_block_types": UP_BLOCKS["sdxl"],
        "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "tiny": {
        "cross_attention_dim": 24,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
}
NUM_PARAMETERS = {"sd15": 859_520_964, "sd21": 865_910_724, "sdxl": 2_567_463_684}


@pytest.fixture(scope="module", params=UNETS)
def unets(request):
    """Name, diffusers' UNet and ComfyUI's, of the same configuration."""
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**UNETS[request.param])
        config = comfy_config(request.param, theirs)
        ours = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
    return request.param, theirs, ours, config


def comfy_config(name: str, unet: UNet2DConditionModel) -> dict:
    """ComfyUI's own reading of a diffusers UNet; the tiny one is none that it knows."""
    if name != "tiny":
        return comfy.model_detection.unet_config_from_diffusers_unet(unet.state_dict(), torch.float16)
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [0, 1],
        "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1,
        "num_heads": 8,
        "context_dim": 24,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "legacy": False,
    }


def norms(unet: torch.nn.Module) -> set[str]:
    kinds = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    return {
        f"{path}.{kind}"
        for path, module in unet.named_modules()
        if isinstance(module, kinds)
        for kind in ("weight", "bias")
    }


def test_every_parameter_gets_the_name_that_comfyui_gives_it(unets):
    _, theirs, _, config = unets
    names = list(theirs.state_dict())
    blocks = block_names(names)
    expected = comfy.utils.unet_to_diffusers(config)
    assert {name: parameter_name(name, blocks) for name in names} == {name: expected[name] for name in names}


def test_all_convolutions_and_linear_layers_are_copied_and_no_norms(unets):
    name, _, ours, _ = unets
    layers, norm_keys, state_dict = foldable_parameters(ours), norms(ours), ours.state_dict()
    assert layers == {key: value.shape for key, value in state_dict.items() if key not in norm_keys}
    if name in NUM_PARAMETERS:
        num_norms = sum(state_dict[key].numel() for key in norm_keys)
        assert sum(shape.numel() for shape in layers.values()) + num_norms == NUM_PARAMETERS[name]


def test_a_third_party_file_of_real_size_fits_the_model(unets):
    name, theirs, ours, _ = unets
    norm_keys = norms(theirs)
    state_dict = {
        f"{key.rpartition('.')[0]}_rep.{key.rpartition('.')[2]}": tensor
        for key, tensor in theirs.state_dict().items()
        if key not in norm_keys
    }
    embedding = ControlNetConditioningEmbedding(UNETS[name].get("block_out_channels", (320,))[0])
    state_dict |= {f"controlnet_cond_embedding.{key}": value for key, value in embedding.state_dict().items()}
    weights, hint_encoder = convert_diffusers(state_dict, "pose")
    base = recognise_base({key: tensor.shape for key, tensor in weights.items()})
    assert base == (name if name != "tiny" else "unet-24")
    header = BranchHeader(base=base, conditions=(), trained_on="", branch_hash="meta tensors have no hash")
    branch = RepControlNet("pose", header, weights, hint_encoder)
    check_branch_fits(branch, foldable_parameters(ours))


def test_the_hint_encoder_computes_what_diffusers_does():
    torch.manual_seed(0)
    theirs = ControlNetConditioningEmbedding(320)
    torch.nn.init.normal_(theirs.conv_out.weight)
    state_dict = {f"controlnet_cond_embedding.{key}": value for key, value in theirs.state_dict().items()}
    _, hint_encoder = convert_diffusers({**state_dict, "conv_in_rep.bias": torch.zeros(320)}, "pose")
    image = torch.rand(1, 3, 64, 32)
    for operations in (torch.nn, comfy.ops.manual_cast):
        encoder = build_hint_encoder(hint_encoder, operations=operations)
        torch.testing.assert_close(encoder(image), theirs(image), rtol=1e-4, atol=1e-4)


def test_the_hint_encoder_has_the_keys_and_shapes_of_a_controlnets():
    from comfy.cldm.cldm import ControlNet

    controlnet = ControlNet(
        image_size=32,
        in_channels=4,
        model_channels=320,
        hint_channels=3,
        num_res_blocks=[1],
        channel_mult=[1],
        transformer_depth=[1],
        transformer_depth_middle=1,
        num_heads=8,
        context_dim=768,
        use_spatial_transformer=True,
        device="meta",
    )
    expected = {key: value.shape for key, value in controlnet.input_hint_block.state_dict().items()}
    assert {key: value.shape for key, value in HintEncoder(device="meta").state_dict().items()} == expected
