"""What fits where: the memory of one step of training a whole branch of SD1.5 at 512x512, and on a GPU its time.

Computed on the meta device, by counting what every operation of forward pass, backward pass and optimizer allocates and
frees. With a GPU, the most that torch had allocated in the second of two steps on random weights stands beside it, for
both ends of the table and for a batch of 1 with everything. The CUDA context takes about half a GiB more.
"""

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from _models import SMALL_UNET, openaimodel
from _report import arguments, report, synchronise
from comfy.ops import disable_weight_init
from fpga.fpga_core.errors import MissingPackageError
from fpga.fpga_core.patching.unet import base_of, cross_attention_layers
from fpga.fpga_core.training.comfy.repcontrolnet import RepControlNetTraining
from fpga.fpga_core.training.comfy.unet import FrozenUNet, checkpoint_blocks
from fpga.fpga_core.training.data.batch import TrainingBatch
from fpga.fpga_core.training.engine.averaging import ParameterAverage
from fpga.fpga_core.training.engine.optimizers import OptimizerKind, make_optimizer
from fpga.fpga_core.training.method.curriculum import Curriculum
from fpga.fpga_core.training.method.denoising import FrozenBase
from fpga.fpga_core.training.method.folded_branch import FoldedBranch
from fpga.fpga_core.training.method.noising import NoiseSchedule, Prediction
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from unet_configs import SD15_UNET

GIB = 2**30
BATCH_SIZES = (1, 2, 4, 8)
MOMENT_BYTES = {OptimizerKind.ADAMW: 8, OptimizerKind.FUSED: 8, OptimizerKind.EIGHT_BIT: 2 + 2 * 4 / 256}
"""Bytes of the optimizer's moments for each parameter; in 8 bits, every 256 share a scale of 4 bytes."""

ADAM = {"learning_rate": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.0}


@dataclass(frozen=True)
class Choice:
    """The options of a row that are not the batch's."""

    optimizer: OptimizerKind
    is_average_on_cpu: bool

    @property
    def columns(self) -> dict[str, str]:
        return {"optimizer": self.optimizer.value, "EMA on": "CPU" if self.is_average_on_cpu else "GPU"}


CHOICES = [Choice(kind, on_cpu) for kind in OptimizerKind for on_cpu in (False, True)]


def training_of(config: dict[str, Any], device: str) -> RepControlNetTraining:
    """Returns a whole branch beside a frozen UNet in bf16, as the engine trains it, with random weights."""
    config = {**config, "dtype": torch.bfloat16}
    unet = openaimodel.UNetModel(**config, device=device, operations=disable_weight_init)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_(std=0.02)
    unet.requires_grad_(False).eval()
    schedule = NoiseSchedule(torch.linspace(0.999, 0.005, 1000, dtype=torch.float64), Prediction.EPS)
    base = FrozenBase(
        architecture=base_of(unet), latent_channels=4, text_dim=config["context_dim"], stride=8, schedule=schedule
    )
    frozen = FrozenUNet(network=unet, config=config, layers=cross_attention_layers(unet), base=base)
    return RepControlNetTraining(frozen, Curriculum(), FoldedBranch.start(unet), identity=None).to(device)


@contextmanager
def checkpointed(training: RepControlNetTraining, is_checkpointed: bool) -> Iterator[None]:
    """Within the block, each block of the network is computed again for the gradient, if wanted."""
    modules = list(training.unet.network.modules())
    given = [module.__dict__.get("forward") for module in modules]
    if is_checkpointed:
        checkpoint_blocks(training.unet.network)
    try:
        yield
    finally:
        for module, forward in zip(modules, given, strict=True):
            if forward is None:
                module.__dict__.pop("forward", None)


def batch_of(size: int, device: str, side: int) -> TrainingBatch:
    picture, latent = (size, 3, side, side), side // 8
    return TrainingBatch(
        latents=torch.randn(size, 4, latent, latent, device=device),
        text=torch.randn(size, 77, 768, device=device),
        null_text=torch.randn(1, 77, 768, device=device),
        skeleton=torch.rand(picture, device=device),
        landmarks=torch.rand(picture, device=device),
        embeddings=torch.randn(size, 512, device=device),
        face_masks=torch.zeros(size, 1, latent, latent, device=device),
    )


def backward(training: RepControlNetTraining, batch: TrainingBatch) -> None:
    training(batch, 0, torch.Generator().manual_seed(0))["loss"].backward()


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of tensors on the meta device that operations within the block make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._counted: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        output = operation(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, output)
        return output

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if tensor.device.type != "meta" or key in self._counted:
            return

        def free(_: object) -> None:
            self.live -= size
            del self._counted[key]

        self._counted[key] = weakref.ref(storage, free)
        self.live += size
        self.peak = max(self.peak, self.live)


@contextmanager
def flash_attention() -> Iterator[None]:
    """On the meta device, torch would compute attention with the matrix of all scores, which no GPU's kernel keeps."""
    given = functional.scaled_dot_product_attention
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    functional.scaled_dot_product_attention = lambda q, k, v: flash(q, k, v)[0]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = given


def computed_backward(training: RepControlNetTraining, batch: TrainingBatch) -> int:
    """Bytes of gradients and of what is kept for them, where they are most together."""
    with flash_attention(), LiveMemory() as memory:
        backward(training, batch)
    training.zero_grad()
    return memory.peak


def computed_update(training: RepControlNetTraining, kind: OptimizerKind) -> int:
    """Bytes between the results of a step of the optimizer, beside its moments; only torch's plain AdamW has any."""
    if kind is not OptimizerKind.ADAMW:
        return 0
    trained = [parameter for parameter in training.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, foreach=True)  # which it takes by itself on a GPU
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    with LiveMemory() as memory:
        optimizer.step()
    training.zero_grad()
    return memory.peak


def nbytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def computed_rows(config: dict[str, Any], side: int) -> list[dict[str, Any]]:
    training = training_of(config, "meta")
    trained = nbytes(*(parameter for parameter in training.parameters() if parameter.requires_grad))
    frozen = nbytes(*training.unet.network.parameters())
    update = {kind: computed_update(training, kind) for kind in OptimizerKind}
    rows = []
    for is_checkpointed in (False, True):
        for size in BATCH_SIZES:
            with checkpointed(training, is_checkpointed):
                passes = computed_backward(training, batch_of(size, "meta", side))
            for choice in CHOICES:
                kept = frozen + trained + trained / 4 * MOMENT_BYTES[choice.optimizer]
                kept += 0 if choice.is_average_on_cpu else trained
                peak = kept + max(passes, trained + update[choice.optimizer])
                columns = {"batch": size, "checkpointing": "yes" if is_checkpointed else "no", **choice.columns}
                rows.append({**columns, "kept GiB": round(kept / GIB, 2), "computed GiB": round(peak / GIB, 2)})
    return rows


def measured(config: dict[str, Any], side: int) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Returns the columns that only a GPU gives, for the rows that are measured."""
    rows = {}
    training = training_of(config, "cuda")
    trained = {name: parameter for name, parameter in training.named_parameters() if parameter.requires_grad}
    for choice in CHOICES:
        sizes = BATCH_SIZES if choice in (CHOICES[0], CHOICES[-1]) else BATCH_SIZES[:1]
        try:
            optimizer = make_optimizer(choice.optimizer, [{"params": list(trained.values())}], **ADAM)
        except MissingPackageError as error:
            print(error)
            continue
        average = ParameterAverage(trained, 0.999, on_cpu=choice.is_average_on_cpu)

        def step(batch: TrainingBatch, optimizer=optimizer, average=average) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                loss = training(batch, 0, torch.Generator().manual_seed(0))["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update(0)

        for is_checkpointed in (False, True):
            for size in sizes:
                key = (size, "yes" if is_checkpointed else "no", *choice.columns.values())
                with checkpointed(training, is_checkpointed):
                    rows[key] = measured_step(step, batch_of(size, "cuda", side))
        del optimizer, average, step
        gc.collect()
    return rows


def measured_step(step, batch: TrainingBatch) -> dict[str, Any]:
    torch.cuda.empty_cache()
    try:
        step(batch)
        torch.cuda.reset_peak_memory_stats()
        synchronise()
        began = time.perf_counter()
        step(batch)
        synchronise()
    except torch.cuda.OutOfMemoryError:
        return {"measured GiB": "too little memory", "reserved GiB": "", "s a step": ""}
    return {
        "measured GiB": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "reserved GiB": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "s a step": round(time.perf_counter() - began, 3),
    }


def main() -> None:
    options = arguments(__doc__)
    config, side = (SMALL_UNET, 128) if options.tiny else (SD15_UNET, 512)
    rows = computed_rows(config, side)
    if torch.cuda.is_available():
        found = measured(config, side)
        empty = {"measured GiB": "", "reserved GiB": "", "s a step": ""}
        rows = [{**row, **found.get(tuple(row.values())[:4], empty)} for row in rows]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: computed only"
    report(f"Training a whole branch at {side}x{side}, bf16 beside float32 parameters ({device})", rows, options.json)


if __name__ == "__main__":
    main()
