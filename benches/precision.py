"""The error of a RepControlNet with weights in half precision or fp8, folded and live, against exact arithmetic.

The reference is the fp32 model with weights folded by hand. "rounding alone" compares the plain model in that dtype
with the plain fp32 model, which shows the cost of the dtype without a RepControlNet. The UNet has SD1.5's blocks with
32 channels.
"""

import torch
from _models import random_model
from _report import arguments, report
from _rounding import relative_error, sample
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.repcontrolnet.live import attach_branch
from random_branches import random_branch
from unet_configs import SD15_UNET

SMALL_UNET = {**SD15_UNET, "model_channels": 32, "num_heads": 2}
STORED = {
    "float32": (torch.float32, None),
    "float16": (torch.float16, None),
    "bfloat16": (torch.bfloat16, None),
    "float8_e4m3fn, computed in bfloat16": (torch.float8_e4m3fn, torch.bfloat16),
}


def main() -> None:
    options = arguments(__doc__)
    exact = random_model(SMALL_UNET, torch.float32)
    branch = random_branch(exact.model.diffusion_model, scale=0.1)
    plain = sample(exact)
    by_hand = random_model(SMALL_UNET, torch.float32)
    with torch.no_grad():
        for name, parameter in by_hand.model.diffusion_model.named_parameters():
            if name in branch.weights:
                parameter += branch.weights[name]
    controlled = sample(by_hand)
    rows = []
    for label, (stored, computed) in STORED.items():
        model = random_model(SMALL_UNET, stored, computed)
        rows.append(
            {
                "weights stored as": label,
                "rounding alone": relative_error(sample(model), plain),
                "folded": relative_error(sample(fold_branch(model, branch)), controlled),
                "live": relative_error(sample(attach_branch(model, branch)), controlled),
                "what the control changes": relative_error(controlled, plain),
            }
        )
    report("Relative error of the sampled latent, 10 DDIM steps", rows, options.json)


if __name__ == "__main__":
    main()
