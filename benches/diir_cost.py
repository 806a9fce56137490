"""The cost of restoring one face on a full-size SD1.5, relative to ordinary img2img of the same crop and steps.

Both sample 512x512 with guidance. The restoration inverts first, at half a guided step per model call. The ratio does
not depend on the number of steps, so only a few are run. The autoencoder, which both need, is left out. The weights are
random, because they do not change the time. The goal is a ratio of at most 1.05 (1 + (1 + r) / 2) for r repetitions.
"""

from functools import partial

import comfy.sample
import comfy.samplers
import torch
from _models import SMALL_UNET, random_model
from _report import arguments, interleaved, ratio_rows, report
from fpga.fpga_core.patching.restoration.samplers import RestorationSampler
from fpga.fpga_core.patching.restoration.sampling import invert_latent, restore_latent
from fpga.fpga_core.restoration.feature_cache import CacheMode
from fpga.fpga_core.restoration.fusion import FusionSettings
from fpga.fpga_core.restoration.settings import InversionSettings
from unet_configs import SD15_UNET

NUM_STEPS = 3
CFG = 5.0
BUDGET_MIB = 1024
OVERHEAD = 1.05


def img2img(model, conditionings, latent, noise, sigmas) -> None:
    sampler = comfy.samplers.sampler_object("euler")
    comfy.sample.sample_custom(model, noise, CFG, sampler, sigmas, *conditionings, latent, disable_pbar=True, seed=0)


def restoration(model, conditionings, latent, *, mask, sigmas, settings: InversionSettings) -> None:
    _, inversion = invert_latent(model, conditionings[0], latent, sigmas=sigmas, settings=settings, mask=mask)
    sampler = RestorationSampler(inversion=inversion, mask=mask, settings=FusionSettings())
    with inversion.cache:
        restore_latent(model, *conditionings, cfg=CFG, sampler=sampler)


def main() -> None:
    options = arguments(__doc__)
    config, size = (SMALL_UNET, 16) if options.tiny else (SD15_UNET, 64)
    model = random_model(config)
    conditionings = [[[torch.randn(1, 77, 768), {}]] for _ in range(2)]
    latent, noise = torch.randn(2, 1, 4, size, size).unbind()
    mask = torch.zeros(1, size, size)
    mask[:, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", NUM_STEPS)
    alternatives = {"img2img": partial(img2img, model, conditionings, latent, noise, sigmas)}
    goals = {"img2img": 1.0}
    for mode in (CacheMode.FULL, CacheMode.STATISTICS):
        for repetitions in (0, 1, 2):
            name = f"{mode.value}, {repetitions} repetitions"
            settings = InversionSettings(repetitions=repetitions, mode=mode, budget_mib=BUDGET_MIB)
            alternatives[name] = partial(
                restoration, model, conditionings, latent, mask=mask, sigmas=sigmas, settings=settings
            )
            goals[name] = OVERHEAD * (1 + (1 + repetitions) / 2)
    with torch.inference_mode():
        rows = ratio_rows(interleaved(alternatives, options.rounds), "img2img")
    rows = [{**row, "at most": round(goals[row["what"]], 3)} for row in rows]
    threads = torch.get_num_threads()
    report(f"One face at {size * 8}x{size * 8}, {NUM_STEPS} steps, bfloat16, {threads} threads", rows, options.json)


if __name__ == "__main__":
    main()
