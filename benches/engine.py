"""A full-size SD1.5 exported to ONNX, against the graph it was exported from, in float32 on the CPU provider.

Every input is varied: the latent and its size, the timestep, the text, the condition image's feature, and casts of 0 to
8 people in one engine. The weights are random.
"""

import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from _models import SMALL_UNET, random_model
from _report import arguments, report
from fpga.fpga_core.patching.acceleration.engine_net import EngineNet, export_unet
from unet_configs import SD15_UNET

NUM_PEOPLE = (0, 1, 4, 8)


def inputs(net: EngineNet, side: int, num_people: int, seed: int) -> list[torch.Tensor]:
    """Returns random inputs of one prompt. Nobody is said by one person whose regions are 0."""
    generator = torch.Generator().manual_seed(seed)
    text, people = torch.randn(1, 77, 768, generator=generator), max(num_people, 1)
    given = [torch.randn(1, 4, side, side, generator=generator), torch.rand(1, generator=generator) * 999, text]
    given += [torch.randn(1, net.unet.model_channels, side, side, generator=generator)]
    given += [torch.randn(1, people, 4, 768, generator=generator)]
    for level in range(net.num_levels):
        given.append(torch.rand(1, people, (side >> level) ** 2, generator=generator) * (num_people > 0))
    return given


def main() -> None:
    options = arguments(__doc__)
    config, side = (SMALL_UNET, 16) if options.tiny else (SD15_UNET, 64)
    net = EngineNet(random_model(config, torch.float32).model.diffusion_model, None).eval()
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        began = time.perf_counter()
        export_unet(net, Path(folder) / "unet.onnx")
        print(f"exported in {time.perf_counter() - began:.0f} s", flush=True)
        session = onnxruntime.InferenceSession(f"{folder}/unet.onnx", providers=["CPUExecutionProvider"])
        for seed, num_people in enumerate(NUM_PEOPLE):
            given = inputs(net, side, num_people, seed)
            began = time.perf_counter()
            expected = net(*given)
            graph = time.perf_counter() - began
            named = {name: tensor.numpy() for name, tensor in zip(net.input_names, given, strict=True)}
            began = time.perf_counter()
            found = torch.from_numpy(session.run(None, named)[0])
            engine = time.perf_counter() - began
            error = float((found - expected).norm() / expected.norm())
            row = {"people": num_people, "relative error": f"{error:.1e}", "engine over graph": f"{engine / graph:.2f}"}
            print(row, flush=True)
            rows.append(row)
    report(f"SD1.5 as ONNX at {side * 8}x{side * 8}, float32, CPU provider", rows, options.json)


if __name__ == "__main__":
    main()
