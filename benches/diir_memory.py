"""The memory of the inversion of one face, on a full-size SD1.5 at 512x512 and 30 steps.

The cache's own count is compared with the plan before the run, with the budget, and with the growth of the process.
"""

import comfy.samplers
import torch
from _models import SMALL_UNET, random_model
from _report import arguments, report, resident_mib
from fpga.fpga_core.patching.restoration.sampling import invert_latent
from fpga.fpga_core.restoration.feature_cache import MIB, CacheMode
from fpga.fpga_core.restoration.settings import InversionSettings
from unet_configs import SD15_UNET

BUDGETS_MIB = {CacheMode.STATISTICS: 16, CacheMode.FULL: 768}


def main() -> None:
    options = arguments(__doc__)
    config, size, num_steps = (SMALL_UNET, 16, 4) if options.tiny else (SD15_UNET, 64, 30)
    model = random_model(config)
    positive = [[torch.randn(1, 77, 768), {}]]
    latent, mask = torch.randn(1, 4, size, size), torch.ones(1, size, size)
    mask[:, : size // 2] = 0
    sampling = model.get_model_object("model_sampling")
    rows = []
    with torch.inference_mode():
        warm_up = comfy.samplers.calculate_sigmas(sampling, "normal", 1)
        settings = InversionSettings(repetitions=0, budget_mib=BUDGETS_MIB[CacheMode.FULL])
        invert_latent(model, positive, latent, sigmas=warm_up, settings=settings)
        for mode, budget_mib in BUDGETS_MIB.items():
            before = resident_mib()
            sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", num_steps)
            settings = InversionSettings(repetitions=0, mode=mode, budget_mib=budget_mib)
            _, inversion = invert_latent(model, positive, latent, sigmas=sigmas, settings=settings, mask=mask)
            held = resident_mib() - before
            cache = inversion.cache
            rows.append(
                {
                    "mode": mode.value,
                    "planned MiB": round(cache.plan.num_bytes / MIB, 2),
                    "recorded MiB": round(cache.num_bytes / MIB, 2),
                    "process grew by MiB": round(held, 1),
                    "budget MiB": budget_mib,
                }
            )
            cache.clear()
            rows[-1]["after freeing MiB"] = round(resident_mib() - before, 1)
    report(f"One face at {size * 8}x{size * 8}, {num_steps} steps, float16 maps", rows, options.json)


if __name__ == "__main__":
    main()
