"""RepControlNets with seeded random weights for any UNet."""

import torch
from fpga.fpga_core.checkpoints import hash_state_dict
from fpga.fpga_core.repcontrolnet.branch import BranchHeader, RepControlNet, recognise_base
from fpga.fpga_core.repcontrolnet.folding import foldable_parameters


def random_branch(
    unet: torch.nn.Module,
    seed: int = 11,
    scale: float = 0.3,
    dtype: torch.dtype = torch.float32,
    name: str = "pose.safetensors",
) -> RepControlNet:
    """A branch whose weights are as large as `scale` times a trained base's, and a hint encoder that matters."""
    generator = torch.Generator().manual_seed(seed)
    shapes = foldable_parameters(unet)

    def draw(shape: torch.Size) -> torch.Tensor:
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
        return torch.randn(shape, generator=generator).mul_(fan_in**-0.5).to(dtype)

    weights = {key: draw(shape).mul_(scale) for key, shape in shapes.items()}
    widths = (3, 16, 16, 32, 32, 96, 96, 256, shapes["input_blocks.0.0.weight"][0])
    hint_encoder = {}
    for layer, (num_in, num_out) in enumerate(zip(widths, widths[1:], strict=False)):
        hint_encoder[f"{2 * layer}.weight"] = draw(torch.Size((num_out, num_in, 3, 3))).mul_(2)
        hint_encoder[f"{2 * layer}.bias"] = draw(torch.Size((num_out,)))
    header = BranchHeader(
        base=recognise_base(shapes),
        conditions=("skeleton", "landmarks"),
        trained_on="nothing: random weights",
        branch_hash=hash_state_dict(weights),
    )
    return RepControlNet(name, header, weights, hint_encoder)
