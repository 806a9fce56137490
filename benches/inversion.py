"""The exactness of DDIM inversion on a trained model, and the cost of each fixed-point repetition.

The small world's model inverts pictures that it was not trained on, with their own captions, in 30 steps. They are then
sampled plainly (Euler, which is DDIM here, with guidance 1). The error is that of the latent, relative to its norm.
"""

import statistics
import time

import comfy.sample
import comfy.samplers
import torch
from _report import arguments, report
from fpga.fpga_core.patching.restoration.sampling import invert_latent
from fpga.fpga_core.restoration.settings import InversionSettings
from fpga.laboratory.gallery import HELD_OUT_SEED, scene_number
from fpga.laboratory.painter import paint
from fpga.laboratory.shipped import load_checkpoint

REPETITIONS = (0, 1, 2, 4, 8)
BUDGET_MIB = 1024


def main() -> None:
    options = arguments(__doc__)
    num_pictures, num_steps = (2, 4) if options.tiny else (16, 30)
    model, clip, vae = load_checkpoint()
    scenes = [scene_number(HELD_OUT_SEED + number) for number in range(num_pictures)]
    errors: dict[int, list[float]] = {repetitions: [] for repetitions in REPETITIONS}
    seconds: dict[int, list[float]] = {repetitions: [] for repetitions in REPETITIONS}
    residuals: dict[int, list[float]] = {repetitions: [] for repetitions in REPETITIONS}
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", num_steps)
    sampler = comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        for scene in scenes:
            picture = torch.from_numpy(paint(scene, 128)).float()[None] / 255
            latent = vae.encode(picture)
            prompt = clip.encode_from_tokens_scheduled(clip.tokenize(scene.caption))
            for repetitions in REPETITIONS:
                began = time.perf_counter()
                settings = InversionSettings(repetitions=repetitions, budget_mib=BUDGET_MIB)
                inverted, inversion = invert_latent(model, prompt, latent, sigmas=sigmas, settings=settings)
                seconds[repetitions].append(time.perf_counter() - began)
                residuals[repetitions].append(inversion.residual)
                inversion.cache.clear()
                back = comfy.sample.sample_custom(
                    model, torch.zeros_like(inverted), 1.0, sampler, sigmas, prompt, prompt, inverted, disable_pbar=True
                )
                errors[repetitions].append(float((back - latent).norm() / latent.norm()))
    rows = [
        {
            "repetitions": repetitions,
            "error": f"{statistics.mean(errors[repetitions]):.2g}",
            "standard error": f"{statistics.stdev(errors[repetitions]) / num_pictures**0.5:.1g}",
            "largest": f"{max(errors[repetitions]):.2g}",
            "largest residual": f"{statistics.mean(residuals[repetitions]):.2g}",
            "model calls a step": 1 + repetitions,
            "time over none": round(
                statistics.median(a / b for a, b in zip(seconds[repetitions], seconds[0], strict=True)), 2
            ),
        }
        for repetitions in REPETITIONS
    ]
    title = f"Inversion and back on the small world, {num_pictures} held-out pictures, {num_steps} steps"
    report(title, rows, options.json)


if __name__ == "__main__":
    main()
