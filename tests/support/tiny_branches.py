"""A RepControlNet of a few kilobytes, and the layers of the UNet that it was copied from, in both layouts."""

import torch
from fpga.fpga_core.repcontrolnet.branch import RepControlNet
from fpga.fpga_core.repcontrolnet.hint_encoder import HintEncoder

HINT_WIDTHS = (3, 2, 2, 3, 3, 4, 4, 5, 8)
BASE = "unet-12"

# ComfyUI's module, the third-party copy of it, shape of the weight, whether there is a bias.
# Two levels, the upper one with attention.
LAYERS = [
    ("input_blocks.0.0", "conv_in_rep", (8, 4, 3, 3), True),
    ("time_embed.0", "time_embedding.linear_1_rep", (10, 8), True),
    ("input_blocks.1.0.in_layers.2", "down_blocks.0.resnets.0.conv1_rep", (8, 8, 3, 3), True),
    ("input_blocks.1.0.emb_layers.1", "down_blocks.0.resnets.0.time_emb_proj_rep", (8, 10), True),
    (
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k_rep",
        (8, 12),
        False,
    ),
    (
        "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj",
        "down_blocks.0.attentions.0.transformer_blocks.0.ff_rep.net.0.proj",
        (16, 8),
        True,
    ),
    ("input_blocks.2.0.op", "down_blocks.0.downsamplers.0.conv_rep", (8, 8, 3, 3), True),
    ("input_blocks.3.0.skip_connection", "down_blocks.1.resnets.0.conv_shortcut_rep", (6, 8, 1, 1), True),
    ("middle_block.0.out_layers.3", "mid_block.resnets.0.conv2_rep", (6, 6, 3, 3), True),
    ("middle_block.1.proj_in", "mid_block.attentions.0.proj_in_rep", (6, 6, 1, 1), True),
    ("middle_block.2.in_layers.2", "mid_block.resnets.1.conv1_rep", (6, 6, 3, 3), True),
    ("output_blocks.0.0.in_layers.2", "up_blocks.0.resnets.0.conv1_rep", (6, 12, 3, 3), True),
    ("output_blocks.1.0.in_layers.2", "up_blocks.0.resnets.1.conv1_rep", (6, 14, 3, 3), True),
    ("output_blocks.1.1.conv", "up_blocks.0.upsamplers.0.conv_rep", (6, 6, 3, 3), True),
    ("output_blocks.2.0.in_layers.2", "up_blocks.1.resnets.0.conv1_rep", (8, 14, 3, 3), True),
    ("output_blocks.3.0.in_layers.2", "up_blocks.1.resnets.1.conv1_rep", (8, 16, 3, 3), True),
    ("output_blocks.3.1.proj_out", "up_blocks.1.attentions.1.proj_out_rep", (8, 8, 1, 1), True),
    ("out.2", "conv_out_rep", (4, 8, 3, 3), True),
]
HINT_NAMES = ["conv_in", *(f"blocks.{number}" for number in range(6)), "conv_out"]


def tiny_layers() -> dict[str, torch.Size]:
    """What `foldable_parameters` gives for the UNet."""
    shapes = {}
    for module, _, shape, has_bias in LAYERS:
        shapes[f"{module}.weight"] = torch.Size(shape)
        if has_bias:
            shapes[f"{module}.bias"] = torch.Size(shape[:1])
    return shapes


def tiny_branch(seed: int = 0, name: str = "tiny") -> RepControlNet:
    generator = torch.Generator().manual_seed(seed)
    weights = {key: torch.randn(shape, generator=generator) for key, shape in tiny_layers().items()}
    hint_encoder = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in HintEncoder(HINT_WIDTHS).state_dict().items()
    }
    return RepControlNet.from_weights(
        name, weights, hint_encoder, conditions=("skeleton", "landmarks"), trained_on="random numbers"
    )


def third_party_state_dict(branch: RepControlNet) -> dict[str, torch.Tensor]:
    """The same branch as the third-party code saves it."""
    tensors = {}
    for module, copy, _, has_bias in LAYERS:
        for kind in ("weight", "bias") if has_bias else ("weight",):
            tensors[f"{copy}.{kind}"] = branch.weights[f"{module}.{kind}"]
    for number, layer in enumerate(HINT_NAMES):
        for kind in ("weight", "bias"):
            tensors[f"controlnet_cond_embedding.{layer}.{kind}"] = branch.hint_encoder[f"{2 * number}.{kind}"]
    return tensors
