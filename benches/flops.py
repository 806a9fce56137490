"""The paper's Table 5, counted: FLOPs, MACs and parameters of SD1.5, alone, with ControlNet and with RepControlNet.

The paper counts only convolutions and linear layers, with two FLOPs per MAC. A separate column adds the attention
products.
"""

import comfy.sd1_clip
import torch
from _models import meta_controlnet, meta_unet
from _report import arguments, report
from comfy.ldm.models.autoencoder import AutoencoderKL
from fpga.fpga_core.repcontrolnet.hint_encoder import HintEncoder
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

LATENT = torch.empty(1, 4, 64, 64, device="meta")  # 512x512 pixels
TIMESTEP = torch.empty(1, device="meta")
TEXT = torch.empty(1, 77, 768, device="meta")
HINT = torch.empty(1, 3, 512, 512, device="meta")


def layer_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Counts the multiply-accumulates of convolutions and linear layers in a forward pass, by each layer's output."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1] * layer.weight.numel()

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return total


def all_flops(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Counts the FLOPs of one forward pass with the attention products, with torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def num_parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def text_encoder() -> nn.Module:
    """Returns CLIP-L's text model without the text projection, which SD1.5 does not have."""
    with torch.device("meta"):
        return comfy.sd1_clip.SDClipModel(device="meta").transformer.text_model


def autoencoder() -> nn.Module:
    config = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    with torch.device("meta"):
        return AutoencoderKL(ddconfig=config, embed_dim=4)


def row(what: str, macs: int, flops: int, parameters: int, base: dict | None) -> dict:
    figures = {"macs": macs, "flops": 2 * macs, "with_attention": flops, "parameters": parameters}
    over = {name: f"+{figures[name] / base[name] - 1:.1%}" if base else "" for name in ("flops", "parameters")}
    return {
        "what": what,
        "FLOPs": f"{2 * macs / 1e12:.3f} T",
        "MACs": f"{macs / 1e12:.3f} T",
        "parameters": f"{parameters / 1e6:.1f} M",
        "FLOPs over SD1.5": over["flops"],
        "FLOPs with attention products": f"{flops / 1e12:.3f} T",
        "_exact": figures,
    }


def main() -> None:
    options = arguments(__doc__)
    unet, controlnet, hint_encoder = meta_unet(), meta_controlnet(), HintEncoder(device="meta")
    rest = num_parameters(text_encoder(), autoencoder())
    unet_inputs, control_inputs = (LATENT, TIMESTEP, TEXT), (LATENT, HINT, TIMESTEP, TEXT)

    base = row(
        "SD1.5", layer_macs(unet, *unet_inputs), all_flops(unet, *unet_inputs), num_parameters(unet) + rest, None
    )
    exact = base["_exact"]

    def beside(what: str, module: nn.Module, *inputs: torch.Tensor) -> dict:
        return row(
            what,
            exact["macs"] + layer_macs(module, *inputs),
            exact["with_attention"] + all_flops(module, *inputs),
            exact["parameters"] + num_parameters(module),
            exact,
        )

    rows = [
        base,
        beside("ControlNet + SD1.5", controlnet, *control_inputs),
        beside("RepControlNet, folded, hint encoder in every step", hint_encoder, HINT),
    ]
    exact_rows = [{"what": r["what"], **r.pop("_exact")} for r in rows]
    report("One UNet evaluation at 512x512 (FPGA Table 5)", rows)
    report("The same, exact", exact_rows, options.json)
    once = layer_macs(hint_encoder, HINT) / 30 / exact["macs"]
    print(f"\nThis pack encodes the condition image once a run: {once:+.2%} FLOPs a step over 30 steps.")


if __name__ == "__main__":
    main()
